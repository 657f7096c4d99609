"""Whether two workspaces over one base hold the same."""

import asyncio
from collections.abc import Mapping

from tightloop.sandbox.entries import CACHE_DIRECTORIES
from tightloop.sandbox.interface import SandboxError
from tightloop.sandbox.tree_identity import read_tree
from tightloop.sandbox.workspace import Workspace

State = Mapping[str, object]
"""What a workspace holds beyond its base; equal states give a command the same files."""


async def state_of(workspace: Workspace) -> State | None:
    """None when that cannot be told at a reasonable cost; it is equal to nothing then."""
    try:
        if workspace.layers is not None:
            return (await asyncio.to_thread(read_tree, workspace)).entries
        changes = await workspace.changes()
    except (SandboxError, OSError):
        return None
    return {
        change.path: change.after
        for change in changes
        if not CACHE_DIRECTORIES.intersection(change.path.split("/"))
    }


def is_same(one: State | None, other: State | None) -> bool:
    """Whether both are known and equal."""
    return one is not None and other is not None and one == other
