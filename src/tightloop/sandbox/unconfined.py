"""No isolation at all: only when the user asks for it by name. Same exec server, same results."""

from tightloop.sandbox.interface import Policy
from tightloop.sandbox.launch import Kind, Launch, server_argv
from tightloop.sandbox.private_places import PrivatePlace


def prepare(policy: Policy, environment: dict[str, str], server_fd: int) -> Launch:
    """The exec server as an ordinary child; its processes can be found when all else is dead."""
    place = PrivatePlace()
    return Launch(server_argv(server_fd), clean_up=place.close, note_tag=place.note_tag)


KIND = Kind("none", prepare, is_confined=False, remedy="nothing is needed")
