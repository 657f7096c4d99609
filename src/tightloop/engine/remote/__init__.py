"""A remote OpenAI-compatible host as an engine; see ``engine.RemoteEngine``."""

from tightloop.engine.remote.engine import HostTimes, RemoteEngine, host_times, parse_remote_name

__all__ = ["HostTimes", "RemoteEngine", "host_times", "parse_remote_name"]
