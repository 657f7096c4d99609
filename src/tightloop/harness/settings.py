"""What a conversation is opened with."""

from dataclasses import dataclass, field
from pathlib import Path

from tightloop.agent.turn import Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """``repo`` is worked on in a private view; ``state_dir`` takes logs, patches and workspaces.

    Backend: ``server`` is the API's root or None for an engine in this process; ``model``,
    ``transport`` (``ws`` or ``http``) and ``api_key_env`` are as for ``backend.open_backend``.

    Commands: ``sandbox`` is an isolation or None for the strongest, ``policy`` a name of
    ``sandbox.policies`` or of the configuration file ``config``. ``speculates`` wants tests run
    ahead of the model. ``verb`` names the log. ``approval`` is a mode of ``approval.interface.Mode``,
    None for the configuration's.

    Planner: a second model that plans for the first (``racing.planning``), with a server and a key of its own;
    None is none.
    """

    repo: Path
    state_dir: Path
    model: str | None = None
    server: str | None = None
    transport: str = "ws"
    api_key_env: str | None = None
    sandbox: str | None = None
    policy: str | None = None
    config: Path | None = None
    approval: str | None = None
    limits: Limits = field(default_factory=Limits)
    speculates: bool = True
    verb: str = "exec"
    planner: str | None = None
    planner_server: str | None = None
    planner_key_env: str | None = None
