"""No isolation at all: only when the user asks for it by name. Same exec server, same results."""

from tightloop.sandbox.interface import Policy
from tightloop.sandbox.launch import Kind, Launch, server_argv


def prepare(policy: Policy, environment: dict[str, str], server_fd: int) -> Launch:
    """The exec server as an ordinary child."""
    return Launch(server_argv(server_fd))


KIND = Kind("none", prepare, is_confined=False, remedy="nothing is needed")
