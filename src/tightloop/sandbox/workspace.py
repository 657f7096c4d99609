"""Copy-on-write workspaces: the agent works on its own view, the user's tree stays untouched."""

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tightloop.sandbox import applying, collecting, layers, layouts, overlay, rewinding
from tightloop.sandbox.applying import WorkspaceConflict
from tightloop.sandbox.bases import find_base, make_base, run_git, tree_state
from tightloop.sandbox.checkout import Checkout, Clash
from tightloop.sandbox.completion import to_its_end
from tightloop.sandbox.entries import Change, Entry, compare, files_below, has_entry, read_below
from tightloop.sandbox.environments import Environment, Found, find_environment
from tightloop.sandbox.following import Followed, Lookout
from tightloop.sandbox.interface import Policy, SandboxError
from tightloop.sandbox.layouts import Layout
from tightloop.sandbox.locks import locked
from tightloop.sandbox.patch_text import unified_diff
from tightloop.sandbox.risks import Risk, risk_of

__all__ = ["Workspace", "WorkspaceConflict", "open_workspace"]


@dataclass(frozen=True, slots=True)
class _Origin:
    """What a view was laid over, and where all of it is kept."""

    repository: Path
    state_dir: Path
    base: Path
    environment: Environment | None
    lookout: Lookout

    @property
    def uses(self) -> list[Path]:
        """Directories that must not be collected meanwhile."""
        layer = [] if self.environment is None else [self.environment.layer]
        return [self.base, *layer]


class Workspace:
    """A private, writable view of a repository.

    ``path`` is where to work, ``kind`` is ``overlay`` or ``copy``, ``reason`` says why it is not
    an overlay, ``note`` what a person should know about its environment. Files that git ignores
    are not in it, but for what the set-up made, or else the repository's own ``.venv``.
    """

    def __init__(
        self, origin: _Origin, layout: Layout, lock_fd: int, kind: str, reason: str, note: str
    ) -> None:
        self.repository = origin.repository
        self.kind = kind
        self.reason = reason
        self.note = note
        self.path = layout.view
        self._origin = origin
        self._base = origin.base
        self._layout = layout
        self._lock_fd = lock_fd
        os.utime(layout.lock)
        self._copied_ns = layout.lock.stat().st_ctime_ns  # the same clock as that of the files
        self._checkout = Checkout(origin.base, origin.lookout.copy())
        self._inherited: set[str] = set()
        self._added: frozenset[str] | None = None
        self._prepared: deque[tuple[Layout, int]] = deque()
        self._discarding = asyncio.Lock()

    def completed(self, policy: Policy) -> Policy:
        """The policy with all that commands need for this workspace's environment."""
        environment = self._origin.environment
        if environment is None:
            return policy
        variables = environment.variables(self.path)
        return replace(
            policy,
            read_only=(*policy.read_only, *environment.readable),
            environment={**variables, **policy.environment},
        )

    @property
    def state_dir(self) -> Path:
        """Where this and all that belongs to it is kept."""
        return self._origin.state_dir

    @property
    def layers(self) -> tuple[Path, Path] | None:
        """On an overlay, the base and the layer that holds all that was changed; else None."""
        return (self._base, self._layout.upper) if self.kind == "overlay" else None

    async def diff(self, *, include_binary: bool = False) -> str:
        """All changes so far as a patch that ``git apply`` takes in the repository.

        What the user has changed there meanwhile and ``follow`` took over is no part of them. Binary files are only named unless ``include_binary``. On an overlay this costs what
        changed, not what is there.
        """
        changes = await asyncio.to_thread(self._changes)
        return unified_diff(changes, include_binary=include_binary)

    async def changed_files(self) -> list[str]:
        """Relative paths that were added, changed or deleted, in order."""
        return [change.path for change in await asyncio.to_thread(self._changes)]

    async def changes(self, *, is_pending: bool = False) -> list[Change]:
        """All changes so far, in order; with ``is_pending`` what ``apply`` has not written yet."""
        found = await asyncio.to_thread(self._pending if is_pending else self._changes)
        return [change for change in found if change.before != change.after]

    async def put(self, changes: Sequence[Change]) -> list[str]:
        """Make these changes here, all or none; returns the written paths.

        Raises WorkspaceConflict naming the files that are neither as before nor as after them.
        """
        return await asyncio.to_thread(applying.apply_changes, changes, self.path, is_durable=False)

    async def revert(self, changes: Sequence[Change]) -> list[str]:
        """Go back to when ``changes`` were all the changes there were; returns the written paths.

        Files that git ignores stay as they are. Nothing may be writing here meanwhile.
        """
        return await asyncio.to_thread(self._revert, changes)

    async def risks(self) -> list[Risk]:
        """Changes that a person should look at before the repository gets them."""
        changes = await asyncio.to_thread(self._changes)
        return [risk for change in changes if (risk := risk_of(change)) is not None]

    async def special_files(self) -> list[str]:
        """Fifos, sockets and devices that were made; they are never applied."""
        if self.kind != "overlay":
            return []
        return await asyncio.to_thread(overlay.special_files, self._layout.upper)

    async def apply(
        self, force: bool = False, *, over: Mapping[str, Entry | None] | None = None
    ) -> list[str]:
        """The repository holds the result, all of it or nothing; returns the written paths.

        Raises WorkspaceConflict naming the files that were changed there meanwhile, unless
        ``force``. ``over`` are such files that may be replaced as long as they hold just this. May be
        called again after more work.
        """
        return await asyncio.to_thread(self._apply, force, over or {})

    async def follow(self) -> Followed:
        """What the user has changed in the checkout since the last time, and nobody here, is here.

        What both have changed stays as it is here, and ``apply`` refuses it. Files that git ignores
        are not looked at; git's own files here stay those of the commit that the base was made of.
        Nothing may be writing here meanwhile. Raises SandboxError when git fails, or when so much
        has changed that a new workspace is needed.
        """
        return await asyncio.to_thread(self._follow)

    async def clashes(self) -> list[Clash]:
        """What keeps ``apply`` from writing: files that both sides have changed, in order."""
        return await asyncio.to_thread(self._clashes)

    async def merge(self, paths: Sequence[str]) -> list[str]:
        """These files hold the changes of both sides, so that ``apply`` finds no conflict in them.

        All of them or none: returns those for which a person has to decide, empty when it is done.
        Raises WorkspaceConflict when one is being written here.
        """
        return await asyncio.to_thread(self._merge, paths)

    async def restore(self, changes: Sequence[Change]) -> list[str]:
        """The work of an earlier workspace is here, also where the user has changed the file since.

        Returns the paths of such files: ``apply`` will refuse them.
        """
        return await asyncio.to_thread(self._restore, changes)

    async def rewind(
        self,
        here: Sequence[Change],
        there: Sequence[Change],
        over: Mapping[str, Entry | None] | None = None,
    ) -> None:
        """These changes are made here, those in the repository: all or none, in both trees.

        ``over`` are paths at which the repository then holds a version of the user's: work here was
        made for the one that is given. Raises WorkspaceConflict naming the files that are neither as before nor
        as after the change, and then nothing was written.
        """
        await asyncio.to_thread(self._rewind, here, there, over or {})

    async def fork(self, count: int = 1) -> list["Workspace"]:
        """New workspaces that begin with this one's present state and go their own ways.

        On an overlay this costs what was changed here, not what is there. Nothing may be writing
        here meanwhile. Each is discarded by itself; all share this one's base.
        """
        return await _owned(lambda: self._fork(count))

    async def prepare_forks(self, count: int = 1) -> None:
        """So many forks more take less time later: what is the same for each is done."""
        try:
            await to_its_end(asyncio.to_thread(self._prepare, count))
        finally:
            if self._lock_fd < 0:  # discarded meanwhile
                await self.drop_prepared_forks()

    @property
    def num_prepared_forks(self) -> int:
        """How many forks find their directories made."""
        return len(self._prepared)

    async def drop_prepared_forks(self) -> None:
        """What was prepared and not used is gone; a discard does it, too."""
        await to_its_end(asyncio.to_thread(self._drop_prepared))

    async def take(self, other: "Workspace") -> list[str]:
        """This workspace holds the other's result, all of it or nothing; the paths that changed.

        Both must be of the same base, as a workspace and its forks are.
        """
        if other._base != self._base:
            raise SandboxError(
                f"{str(other.path)!r} is not laid over the same state as {str(self.path)!r}: "
                "only a fork's result can be taken"
            )
        return await asyncio.to_thread(self._take, other)

    async def mirror(self, other: "Workspace") -> list[str]:
        """This workspace holds what the other holds, and knows of the checkout what it knows.

        As ``take``, also with what the other took over from the user. Returns the paths that changed;
        what git ignores stays as it is here.
        """
        if other._base != self._base:
            raise SandboxError(f"{str(self.path)!r} is no fork of {str(other.path)!r}")
        return await asyncio.to_thread(self._mirror, other)

    async def discard(self) -> None:
        """The workspace is gone, at once whatever it holds. May be called twice, also at once.

        Its files are out of the way, and deleted by a thread that nobody waits for. A cancellation
        counts once this is done.
        """
        async with self._discarding:
            await to_its_end(asyncio.to_thread(self._end))

    def _end(self) -> None:
        lock_fd, self._lock_fd = self._lock_fd, -1
        if lock_fd >= 0:
            _give_up(self._layout, self._origin.state_dir, lock_fd)
        self._drop_prepared()

    def _drop_prepared(self) -> None:
        while True:
            try:
                layout, lock_fd = self._prepared.popleft()
            except IndexError:  # also where a fork has just taken the last one
                return
            _give_up(layout, self._origin.state_dir, lock_fd)

    def _changes(self) -> list[Change]:
        if self._lock_fd < 0:
            raise SandboxError("the workspace has been discarded")
        try:
            candidates = self._candidates() - self._checkout.followed.keys()
            found = compare(self._base, self.path, self._without_ignored(candidates))
            found += self._checkout.changed_since(self.path)
            return sorted(found, key=lambda change: change.path)
        except OSError as error:
            raise SandboxError(
                f"the workspace cannot be read: {error}; end what is writing there, or give it "
                f"its permissions back with 'chmod -R u+rwX {self.path}'"
            ) from error

    def _candidates(self) -> set[str]:
        """Paths that may differ from the base; what belongs to the environment is not work."""
        if self.kind == "overlay":
            found = overlay.changed_candidates(self._base, self._layout.upper)
        else:
            found = _copy_candidates(self._base, self.path, self._copied_ns) | self._inherited
        if self._origin.environment is None:
            return found
        if self._added is None:
            self._added = frozenset(layers.new_roots(self._origin.environment.layer, self._base))
        return {path for path in found if not self._added.intersection(_prefixes(path))}

    def _without_ignored(self, candidates: set[str]) -> set[str]:
        """New files that git would ignore are build results, not part of the work, nor read.

        git sees the base alone, never what the workspace made of it: a fifo in the place of a
        ``.gitignore`` would hold it for good.
        """
        new = sorted(
            path
            for path in candidates
            if ".git" not in path.split("/") and not has_entry(self._base, path)
        )
        if not new or not (self._base / ".git").is_dir():
            return candidates
        arguments = [f"--git-dir={self._base / '.git'}", f"--work-tree={self._base}"]
        command = [*arguments, "check-ignore", "-z", "--stdin", "--no-index"]
        names = b"".join(b"./" + os.fsencode(name) + b"\0" for name in new)
        # 128: a name lies behind a link; then nothing counts as ignored
        listed = run_git(command, self._base, accepted=(0, 1, 128), text=names)
        return candidates - {os.fsdecode(name)[2:] for name in listed.split(b"\0") if name}

    def _pending(self) -> list[Change]:
        """From what the repository got last to what is here; also where both are the same."""
        changes = {change.path: change for change in self._changes()}
        applied = dict(self._checkout.applied)
        for path in applied:
            if path not in changes:  # applied before, then taken back here
                before = self._checkout.origin(path)
                changes[path] = Change(path, before, read_below(self.path, path))
        return [
            Change(path, applied.get(path, change.before), change.after)
            for path, change in sorted(changes.items())
        ]

    def _revert(self, changes: Sequence[Change]) -> list[str]:
        wanted = {change.path: change.after for change in changes}
        present = {change.path: change for change in self._changes()}
        back = [
            Change(
                path,
                read_below(self.path, path),
                wanted[path] if path in wanted else present[path].before,
            )
            for path in sorted(wanted.keys() | present.keys())
        ]
        return applying.apply_changes(back, self.path, is_durable=False)

    def _apply(self, force: bool, over: Mapping[str, Entry | None]) -> list[str]:
        expected = [
            replace(change, before=over.get(change.path, change.before))
            for change in self._pending()
        ]
        written = applying.apply_changes(expected, self.repository, force=force)
        self._checkout.applied.update({change.path: change.after for change in expected})
        return written

    def _follow(self) -> Followed:
        if self._lock_fd < 0:
            raise SandboxError("the workspace has been discarded")
        return rewinding.follow(self._checkout, self.repository, self.path)

    def _clashes(self) -> list[Clash]:
        return rewinding.clashes(self._pending(), self.repository)

    def _merge(self, paths: Sequence[str]) -> list[str]:
        return rewinding.merge(self._checkout, self.repository, self.path, paths)

    def _restore(self, changes: Sequence[Change]) -> list[str]:
        return rewinding.restore(self._checkout, self.path, changes)

    def _rewind(
        self,
        here: Sequence[Change],
        there: Sequence[Change],
        over: Mapping[str, Entry | None],
    ) -> None:
        rewinding.rewind(self._checkout, (self.path, here), (self.repository, there), over)

    def _take(self, other: "Workspace") -> list[str]:
        theirs = {change.path: change for change in other._changes()}
        paths = theirs.keys() | {change.path for change in self._changes()}
        changes = []
        for path in sorted(paths):
            mine, origin = read_below(self.path, path), self._checkout.origin(path)
            changes.append(Change(path, mine, theirs[path].after if path in theirs else origin))
        written = applying.apply_changes(changes, self.path, is_durable=False)
        for change in theirs.values():  # the user may have changed it while the fork was at work
            if change.before != self._checkout.origin(change.path):
                self._checkout.follow(change.path, change.before)
        return written

    def _mirror(self, other: "Workspace") -> list[str]:
        known = other._checkout.copy()
        paths = {change.path for change in (*self._changes(), *other._changes())}
        paths |= known.followed.keys() ^ self._checkout.followed.keys()
        paths |= {
            path
            for path in known.followed.keys() & self._checkout.followed.keys()
            if known.followed[path] != self._checkout.followed[path]
        }
        changes = [
            Change(path, read_below(self.path, path), read_below(other.path, path))
            for path in sorted(paths)
        ]
        written = applying.apply_changes(changes, self.path, is_durable=False)
        self._checkout = known
        return written

    def _fork(self, count: int) -> list["Workspace"]:
        if self._lock_fd < 0:
            raise SandboxError("the workspace has been discarded")
        made: list[Workspace] = []
        try:
            while len(made) < count:
                made.append(self._fork_one())
        except BaseException:
            for workspace in made:
                _discard(workspace._layout, self._origin.state_dir)
                os.close(workspace._lock_fd)
            raise
        return made

    def _prepare(self, count: int) -> None:
        with locked(self._origin.state_dir / "lock"):
            for _ in range(count):
                self._prepared.append(self._lay_out())

    def _lay_out(self) -> tuple[Layout, int]:
        return layouts.lay_out(self._origin.state_dir, self.path.name, self._origin.uses)

    def _fork_one(self) -> "Workspace":
        try:
            layout, lock_fd = self._prepared.popleft()
        except IndexError:
            with locked(self._origin.state_dir / "lock"):
                layout, lock_fd = self._lay_out()
        try:
            if self.kind == "overlay":
                if os.listdir(self._layout.upper):
                    layers.copy_tree(self._layout.upper, layout.upper)
                _mount(self._origin, layout)
            else:
                layers.copy_tree(self.path, layout.view)
        except BaseException:
            _discard(layout, self._origin.state_dir)
            os.close(lock_fd)
            raise
        fork = Workspace(self._origin, layout, lock_fd, self.kind, self.reason, self.note)
        fork._checkout = self._checkout.copy()
        fork._inherited = set() if self.kind == "overlay" else self._candidates()
        return fork


async def open_workspace(
    repository: Path, *, state_dir: Path, kind: str | None = None
) -> Workspace:
    """A fresh workspace over the repository's present state, uncommitted work included.

    ``kind`` forces ``overlay`` or ``copy``; without it an overlay is used where the kernel allows
    one. Left-overs of processes that died are removed on the way. Raises SandboxError when the
    repository is missing, git fails, or a forced overlay is impossible.
    """
    if kind not in (None, "overlay", "copy"):
        raise SandboxError(f"unknown workspace kind {kind!r}: known are overlay, copy")
    try:
        return (await _owned(lambda: [_open(repository, state_dir, kind)]))[0]
    except OSError as error:
        raise SandboxError(
            f"no workspace can be made in {str(state_dir)!r}: {error}; choose another state "
            "directory, or make it writable and have room in it"
        ) from error


async def _owned(make: Callable[[], list[Workspace]]) -> list[Workspace]:
    """What is made in a thread; when the caller is cancelled, nothing of it is left."""
    making = asyncio.ensure_future(asyncio.to_thread(make))
    try:
        return await to_its_end(making)
    except asyncio.CancelledError:  # what has been made all the same has no other owner
        if not making.cancelled() and making.exception() is None:
            for workspace in making.result():
                await workspace.discard()
        raise


def _open(repository: Path, state_dir: Path, kind: str | None) -> Workspace:
    repository = Path(os.path.realpath(repository))
    if not repository.is_dir():
        raise SandboxError(f"repository {str(repository)!r} is not a directory")
    state_dir = Path(os.path.realpath(state_dir))
    for path in (repository, state_dir):
        if any("\ud800" <= character <= "\udfff" for character in str(path)):
            raise SandboxError(f"{str(path)!r} has a name that is not UTF-8: give it another one")
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    applying.recover(repository)
    state = tree_state(repository, exclude=state_dir)
    is_new = False
    while True:
        with locked(state_dir / "lock"):
            layouts.in_use(state_dir)
            base = find_base(state, state_dir / "bases")
            if base is not None:
                found = find_environment(state, base, state_dir)
                lookout = Lookout.of(state, state_dir)
                origin = _Origin(repository, state_dir, base, found.environment, lookout)
                layout, lock_fd = layouts.lay_out(state_dir, repository.name, origin.uses)
                break
        make_base(state, state_dir / "bases")  # without the lock: others need not wait for it
        is_new = True
    try:
        workspace = _shown(origin, layout, lock_fd, kind, found)
        if is_new:
            collecting.collect(state_dir, collecting.Limits())
    except BaseException:
        _discard(layout, state_dir)
        os.close(lock_fd)
        raise
    _empty_trash_aside(state_dir)
    return workspace


def _shown(
    origin: _Origin, layout: Layout, lock_fd: int, kind: str | None, found: Found
) -> Workspace:
    """The view shows base and environment, by a mount or by a copy."""
    reason = "asked for"
    if kind != "copy":
        try:
            _mount(origin, layout)
        except (OSError, SandboxError) as error:
            reason = str(error.strerror) if isinstance(error, OSError) else str(error)
            if kind == "overlay":
                raise SandboxError(
                    f"no overlay possible: {reason}; run as root or use kind 'copy'"
                ) from error
        else:
            return Workspace(origin, layout, lock_fd, "overlay", "", found.note)
    layers.copy_tree(origin.base, layout.view)
    if origin.environment is not None:
        layers.copy_tree(origin.environment.layer, layout.view)
    return Workspace(origin, layout, lock_fd, "copy", reason, found.note)


def _mount(origin: _Origin, layout: Layout) -> None:
    between = [] if origin.environment is None else [origin.environment.layer]
    overlay.mount(origin.base, layout.upper, layout.work, layout.view, between=between)


def _give_up(layout: Layout, state_dir: Path, lock_fd: int) -> None:
    try:
        _discard(layout, state_dir)
    finally:
        os.close(lock_fd)


def _discard(layout: Layout, state_dir: Path) -> None:
    layouts.throw_away(layout.root, state_dir)
    _empty_trash_aside(state_dir)


def _empty_trash_aside(state_dir: Path) -> None:
    """Deletes what was thrown away while nobody waits; what is left at the end, the next finds."""
    trash = state_dir / "trash"
    if trash.is_dir() and os.listdir(trash):
        threading.Thread(
            target=layouts.empty_trash,
            args=(state_dir,),
            kwargs={"wait": False},
            name="trash",
            daemon=True,
        ).start()


def _prefixes(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[: end + 1]) for end in range(len(parts))]


def _copy_candidates(base: Path, view: Path, copied_ns: int) -> set[str]:
    """Everything new, gone, or touched since the copy: no change can set a ctime back."""
    here, there = files_below(view, ""), files_below(base, "")
    changed = {name for name in here & there if os.lstat(view / name).st_ctime_ns >= copied_ns}
    return (here ^ there) | changed
