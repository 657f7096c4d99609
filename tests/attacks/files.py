"""F: files, the numbers with probes."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.attacks import checkout, layers_and_disk
from tests.attacks.attack import Attack, By, Probe
from tests.attacks.ground import Ground
from tests.attacks.inside import files as inside

ROOTED = ("root", "mapped")
NOT_LANDLOCK = (
    "Landlock has no stricter subtrees; `doctor` says so. With an overlay it is in no result."
)
NOT_THERE = (
    "what did not exist can be made in a checkout that is the workspace itself; with an overlay "
    "it is in no result, or flagged there."
)
NOT_COVERED = "Landlock has no right for it; `doctor` says so."


@contextlib.contextmanager
def shared_memory(ground: Ground) -> Iterator[Mapping[str, Any]]:
    """A name in shared memory that is gone afterwards."""
    path = Path("/dev/shm", f"F15-{ground.root.name}")
    yield {"shm": str(path)}
    path.unlink(missing_ok=True)


@contextlib.contextmanager
def layers(ground: Ground) -> Iterator[Mapping[str, Any]]:
    """Where the writable layer of the overlay is."""
    yield {"upper": str(ground.view._layout.upper) if ground.view else ""}


PROPS = (shared_memory, layers, checkout.protected)

ATTACKS = (
    Attack(
        "F1",
        "write outside the workspace",
        (
            Probe(
                "in a readable directory",
                inside.write_readable,
                bubblewrap="EROFS",
                landlock="EACCES",
                trace=lambda ground: ground.outside / "F1-readable",
            ),
            Probe(
                "in the home directory",
                inside.write_home,
                bubblewrap="private",
                landlock="EACCES",
                trace=lambda ground: ground.home / "F1-home",
            ),
            Probe(
                "beside the workspace",
                inside.write_parent,
                bubblewrap="private",
                landlock="EACCES",
                trace=lambda ground: ground.workspace.parent / "F1-parent",
            ),
            Probe(
                "in `/etc`",
                inside.write_etc,
                bubblewrap="EROFS",
                landlock="EACCES",
                users=("root",),
            ),
        ),
    ),
    Attack(
        "F2",
        "write to the host's directory for temporary files",
        (
            Probe(
                "",
                inside.write_tmp,
                bubblewrap="private",
                landlock="EACCES",
                trace=lambda ground: ground.root / "F2",
            ),
        ),
    ),
    Attack(
        "F3",
        "write through a link that leads outside",
        (
            Probe(
                "to a readable directory",
                inside.write_through_link,
                bubblewrap="EROFS",
                landlock="EACCES",
                trace=lambda ground: ground.outside / "F3",
            ),
            Probe(
                "to a hidden file",
                inside.write_through_closed_link,
                bubblewrap="ENOENT",
                landlock="EACCES",
                trace=lambda ground: ground.closed / "F3",
            ),
        ),
    ),
    Attack(
        "F4",
        "a protected name is a link to a decoy",
        (
            Probe(
                "written through",
                checkout.decoy,
                bubblewrap="refused before the start",
                landlock="ok",
                gap=NOT_LANDLOCK,
            ),
        ),
    ),
    Attack(
        "F5",
        "a link exchanged between check and use",
        (
            *(
                Probe(
                    f"while a sandbox starts, {name} link",
                    checkout.race_at_start(aim),
                    bubblewrap="never shown",
                    landlock="never shown",
                    control="shown",
                    places=("plain",),
                )
                for name, aim in (
                    ("an absolute", "{home}/.netrc"),
                    ("a relative", "../../home/.netrc"),
                )
            ),
        ),
    ),
    Attack(
        "F6",
        "a hard link to an outside file",
        (
            Probe("by name", inside.hard_link, "EXDEV", "EXDEV", places=("plain",)),
            Probe(
                "by descriptor",
                inside.hard_link_by_descriptor,
                "EXDEV",
                "EXDEV",
                places=("plain",),
            ),
        ),
    ),
    Attack(
        "F7",
        "rename a directory above a protected path, then use the name",
        (
            Probe(
                "`.git`",
                checkout.rename_above(".git/config", is_policy=False),
                "EBUSY",
                "ok",
                places=("plain",),
                gap=NOT_LANDLOCK,
            ),
            Probe(
                "a path of the policy",
                checkout.rename_above("deep/er/file", is_policy=True),
                "EBUSY",
                "ok",
                places=("plain",),
                gap=NOT_LANDLOCK,
            ),
        ),
    ),
    Attack(
        "F8",
        "ways around by `..` and `/proc`",
        (
            Probe("`../../..`", inside.dots, "EROFS", "EACCES"),
            Probe("`/proc/self/root`", inside.own_root, "EROFS", "EACCES"),
            Probe("`/proc/self/cwd`", inside.own_directory, "EROFS", "EACCES"),
            Probe(
                "`/proc/1/root`",
                inside.root_of_first,
                "EACCES",  # bwrap's own process does without the second wall: nobody looks into it
                "EACCES",
                control="hush-hush",
                users=ROOTED,
            ),
            Probe(
                "the agent's root",
                inside.root_of_owner,
                "ENOENT",
                "EACCES",
                control="hush-hush",
                users=ROOTED,
            ),
        ),
    ),
    Attack(
        "F9",
        "make a protected path that did not exist",
        (
            Probe(
                "`.git/hooks`, `.git/commondir`",
                checkout.new_in_git,
                By("ok", overlay="in no result"),
                By("ok", overlay="in no result"),
                gap=NOT_THERE,
            ),
            Probe(
                "an editor's and a shell's settings",
                checkout.new_settings,
                By("ok", overlay="flagged"),
                By("ok", overlay="flagged"),
                gap=NOT_THERE,
            ),
        ),
    ),
    Attack(
        "F10",
        "what git would run",
        (
            Probe("changed", inside.change_git, "EROFS", "ok", gap=NOT_LANDLOCK),
            Probe(
                "renamed away",
                inside.remove_git,
                "EBUSY",
                "ok",
                gap=NOT_LANDLOCK,
                places=("plain",),
            ),
            Probe(
                "git on the host with the workspace's configuration",
                checkout.host_git,
                "not executed",
                "not executed",
                control="executed",
                places=("overlay",),
            ),
        ),
    ),
    Attack(
        "F11",
        "what editors, shells and agents would run",
        (
            Probe("changed", inside.change_tools, "EROFS", "ok", gap=NOT_LANDLOCK),
            Probe(
                "renamed away",
                inside.remove_tools,
                "EBUSY",
                "ok",
                gap=NOT_LANDLOCK,
                places=("plain",),
            ),
            Probe(
                "in a result",
                checkout.all_settings,
                "flagged",
                "flagged",
                control="in the result",
                places=("overlay",),
            ),
            Probe(
                "entry points of `pyproject.toml`",
                checkout.entry_points,
                "flagged",
                "flagged",
                control="in the result",
                places=("overlay",),
            ),
        ),
    ),
    Attack(
        "F12",
        "names that mounts need, left in the checkout",
        (Probe("", checkout.ghosts, "none", "none", control="left: .bashrc", places=("plain",)),),
    ),
    Attack(
        "F13",
        "a planted record of a half-done application, undone on the host",
        tuple(
            Probe(name, run, "refused", "refused", control="carried out", places=("plain",))
            for name, run in (
                ("outside", checkout.planted_journal),
                ("by a link", checkout.planted_journal_by_link),
                ("in `.git`", checkout.planted_configuration),
            )
        ),
    ),
    Attack(
        "F14",
        "special files",
        (
            Probe("a device", inside.make_device, "EPERM", "EPERM", users=("root",)),
            Probe("set-uid by chmod", inside.set_uid_by_chmod, "EPERM", "EPERM"),
            Probe("set-uid by open", inside.set_uid_at_once, "EPERM", "EPERM"),
            Probe("set-uid by mknod", inside.set_uid_by_mknod, "EPERM", "EPERM"),
            Probe(
                "a fifo in a result",
                layers_and_disk.exported_fifo,
                "told of, never exported",
                "told of, never exported",
                control="exported",
                places=("overlay",),
            ),
        ),
    ),
    Attack(
        "F15",
        "shared memory",
        (
            Probe(
                "of the host",
                inside.shared_memory,
                "private",
                "EACCES",
                trace=lambda ground: Path(ground.values["shm"]),
            ),
        ),
    ),
    Attack(
        "F16",
        "marks of the overlay",
        (
            Probe(
                "a deletion, in the layer",
                inside.whiteout,
                "private",
                "EACCES",
                places=("overlay",),
                trace=lambda ground: Path(ground.values["upper"], "F16"),
            ),
            Probe(
                "an emptied directory",
                layers_and_disk.opaque,
                "stored escaped",
                "stored escaped",
                control="deleted",
                places=("overlay",),
            ),
        ),
    ),
    Attack(
        "F17",
        "mounts",
        (
            Probe("`/` again, writable", inside.remount_root, "EPERM", "EPERM", users=ROOTED),
            Probe("a new one", inside.mount_tmpfs, "EPERM", "EPERM", users=ROOTED),
            Probe("a bind mount", inside.bind_over, "EPERM", "EPERM", users=ROOTED),
            Probe(
                "what hides the home directory", inside.unmount_mask, "EPERM", "EPERM", users=ROOTED
            ),
        ),
    ),
    Attack(
        "F18",
        "fill the disk",
        (
            Probe(
                "one file",
                layers_and_disk.large_file,
                "SIGXFSZ at 2 MiB",
                "SIGXFSZ at 2 MiB",
                control="8 MiB",
            ),
            Probe(
                "temporary files",
                layers_and_disk.full_scratch,
                "ENOSPC",
                "ok",
                users=("root",),
                places=("plain",),
                gap="files together are not limited, in a workspace neither: use a file system with a quota.",
            ),
        ),
    ),
    Attack(
        "F19",
        "change what is not content, outside",
        (
            Probe("permissions", inside.change_mode, "EROFS", "ok", gap=NOT_COVERED),
            Probe("the set-uid bit", inside.make_outside_set_uid, "EPERM", "EPERM"),
            Probe("times", inside.change_time, "EROFS", "ok", gap=NOT_COVERED),
            Probe("attributes", inside.change_attribute, "EROFS", "ok", gap=NOT_COVERED),
        ),
    ),
    Attack("F20", "protected names in other spellings of the same letters", platform="macOS"),
)
