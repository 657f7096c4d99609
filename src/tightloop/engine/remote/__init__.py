"""A remote OpenAI-compatible host as an engine; see ``engine.RemoteEngine`` and ``options``."""

from tightloop.engine.remote.call import HostTimes, host_times
from tightloop.engine.remote.engine import RemoteEngine, create_remote
from tightloop.engine.remote.options import (
    RemoteName,
    RemoteOptions,
    parse_options,
    parse_remote_name,
)

__all__ = [
    "HostTimes",
    "RemoteEngine",
    "RemoteName",
    "RemoteOptions",
    "create_remote",
    "host_times",
    "parse_options",
    "parse_remote_name",
]
