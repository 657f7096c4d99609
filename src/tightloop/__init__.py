"""tightloop: a coding agent and serving stack built for short edit-test rounds.

``from tightloop import Agent`` and the other names of ``tightloop.api``; what they need is imported
with the first of them.
"""

TYPE_CHECKING = False  # typing's own would have to be imported
if TYPE_CHECKING:
    from tightloop.api import (
        Agent,
        Limits,
        NoSuchThread,
        SandboxError,
        Status,
        Turn,
        UsageError,
        WorkspaceConflict,
        run,
    )

__version__ = "0.1.0.dev0"
__all__ = [
    "Agent",
    "Limits",
    "NoSuchThread",
    "SandboxError",
    "Status",
    "Turn",
    "UsageError",
    "WorkspaceConflict",
    "run",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'tightloop' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module("tightloop.api"), name)
