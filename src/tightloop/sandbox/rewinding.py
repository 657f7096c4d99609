"""Two trees that must agree: a workspace's view, and the checkout that its user works in.

Each function reads both, decides path by path, and then writes through ``applying``: all or nothing in
each tree, and never over something that it has not seen.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tightloop.sandbox import applying
from tightloop.sandbox.applying import WorkspaceConflict
from tightloop.sandbox.checkout import Checkout, Clash
from tightloop.sandbox.entries import Change, Entry, read_below
from tightloop.sandbox.following import Followed, differing
from tightloop.sandbox.merging import merged

Writing = tuple[Path, Sequence[Change]]
"""A tree, and what to make of it."""


def follow(checkout: Checkout, repository: Path, view: Path) -> Followed:
    """See ``Workspace.follow``."""
    candidates, moved = checkout.lookout.look()
    try:
        taken, conflicts = _follow(checkout, repository, view, candidates | checkout.told.keys())
    except BaseException:
        checkout.lookout.keep(candidates)  # this look told nobody anything
        raise
    return Followed(tuple(taken), tuple(conflicts), moved)


def _follow(
    checkout: Checkout, repository: Path, view: Path, candidates: set[str]
) -> tuple[list[str], list[str]]:
    """What was taken over, and new conflicts."""
    theirs = differing(repository, candidates, checkout.known)
    for path in checkout.told.keys() - theirs.keys():  # the user has gone back to what is known
        del checkout.told[path]
    taken, conflicts = [], []
    for path, entry in theirs.items():
        present = read_below(view, path)
        if present == checkout.known(path):
            taken.append(Change(path, present, entry))
        elif present == entry:  # both did the same: as if it had been applied
            checkout.applied[path] = entry
            checkout.told.pop(path, None)
        else:
            conflicts.append(path)
    conflicts += _put(checkout, view, taken)
    told = checkout.told
    new = [path for path in sorted(conflicts) if path not in told or told[path] != theirs[path]]
    told.update({path: theirs[path] for path in conflicts})
    return [change.path for change in taken if change.path not in told], new


def _put(checkout: Checkout, view: Path, taken: Sequence[Change]) -> list[str]:
    """The user's versions are in the view; the paths where something of the view's own is in the way."""
    wanted = list(taken)
    blocked: list[str] = []
    while wanted:
        try:
            applying.apply_changes(wanted, view, is_durable=False)
        except WorkspaceConflict as error:
            blocked += error.paths
            wanted = [change for change in wanted if change.path not in error.paths]
        else:
            break
    for change in wanted:
        checkout.follow(change.path, change.after)
    return blocked


def clashes(pending: Sequence[Change], repository: Path) -> list[Clash]:
    """See ``Workspace.clashes``."""
    found = []
    for change in pending:
        theirs = read_below(repository, change.path)
        if theirs not in (change.before, change.after):
            found.append(Clash(change.path, change.before, theirs, change.after))
    return found


def merge(checkout: Checkout, repository: Path, view: Path, paths: Sequence[str]) -> list[str]:
    """See ``Workspace.merge``."""
    changes, theirs, open_ones = [], {}, []
    for path in paths:
        mine, theirs[path] = read_below(view, path), read_below(repository, path)
        both = merged(checkout.known(path), theirs[path], mine)
        if both is None:
            open_ones.append(path)
        else:
            changes.append(Change(path, mine, both))
    if not open_ones:
        applying.apply_changes(changes, view, is_durable=False)
        for path in paths:
            checkout.follow(path, theirs[path])
    return open_ones


def restore(checkout: Checkout, view: Path, changes: Sequence[Change]) -> list[str]:
    """See ``Workspace.restore``."""
    present = {change.path: read_below(view, change.path) for change in changes}
    wanted = [Change(change.path, present[change.path], change.after) for change in changes]
    applying.apply_changes(wanted, view, is_durable=False)
    changed = []
    for change in changes:
        theirs = present[change.path]
        if theirs not in (change.before, change.after):
            checkout.followed[change.path] = change.before
            checkout.told[change.path] = theirs
            changed.append(change.path)
    checkout.lookout.keep(changed)
    return changed


def rewind(
    checkout: Checkout, here: Writing, there: Writing, over: Mapping[str, Entry | None]
) -> None:
    """See ``Workspace.rewind``."""
    repository, changes = there
    moved = [
        change.path
        for change in here[1]
        if read_below(here[0], change.path) not in (change.before, change.after)
    ]
    if moved:  # before the checkout is touched
        raise WorkspaceConflict(moved)
    written = applying.apply_changes(changes, repository)
    try:
        applying.apply_changes(here[1], here[0], is_durable=False)
    except BaseException:
        back = [
            Change(change.path, change.after, change.before)
            for change in changes
            if change.path in written
        ]
        applying.apply_changes(back, repository)
        raise
    checkout.applied.update({change.path: change.after for change in changes})
    for path, entry in over.items():
        checkout.follow(path, entry)
    checkout.lookout.keep(change.path for change in changes)
