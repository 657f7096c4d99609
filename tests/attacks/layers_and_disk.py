"""What is done to layers of overlays, to special files in a result, and to the disk."""

import asyncio
import os
import signal
import subprocess

from tests.attacks.attack import CONTROL
from tests.attacks.checkout import Fresh, fresh
from tests.attacks.ground import Ground
from tightloop.sandbox.interface import Command

_MARK = "user.overlay.opaque"
_MIB = 1 << 20


async def opaque(ground: Ground) -> str:
    """A directory is marked as one that hides the base's; the control marks the layer itself."""
    async with fresh(ground) as workspace:
        assert workspace.view is not None
        sub = workspace.path / "sub"
        (sub / "new").write_text("x\n")
        layer = workspace.view._layout.upper / "sub"
        if ground.backend == CONTROL:
            os.setxattr(layer, _MARK, b"y")
        else:
            sandbox = await ground.open(workspace=workspace.path)
            code = f"import os; os.setxattr('sub', {_MARK!r}, b'y')"
            argv = [ground.values["python"], "-I", "-S", "-c", code]
            result = await sandbox.run(Command(argv=argv))
            await sandbox.close()
            if result.exit_code != 0:
                return result.output.strip()
            assert os.getxattr(sub, _MARK) == b"y"
        is_deleted = "sub/file" in workspace.view._candidates()
        is_marked = _MARK in os.listxattr(layer)
        return "deleted" if is_deleted and is_marked else "stored escaped"


async def exported_fifo(ground: Ground) -> str:
    """A fifo in the place of a file; the control is ``cp``, which takes it along."""
    async with fresh(ground) as workspace:
        assert workspace.view is not None
        sandbox = await ground.open(workspace=workspace.path)
        await sandbox.run(Command(script="mkfifo F14-fifo"))
        await sandbox.close()
        target = workspace.checkout / "F14-fifo"
        if ground.backend == CONTROL:
            line = ["cp", "-a", str(workspace.path / "F14-fifo"), str(target)]
            await asyncio.to_thread(subprocess.run, line, check=True)
        elif await workspace.view.special_files() == ["F14-fifo"]:
            await workspace.view.apply()
        is_there = await asyncio.to_thread(os.path.lexists, target)
        return "exported" if is_there else "told of, never exported"


async def large_file(ground: Ground) -> str:
    """A file above the limit; afterwards a command still runs."""
    script = "head -c 8388608 /dev/zero > big"
    async with fresh(ground) as workspace:
        if ground.backend == CONTROL:
            line = ["sh", "-c", script]
            await asyncio.to_thread(subprocess.run, line, cwd=workspace.path, check=False)
        else:
            limit = 2 * _MIB
            sandbox = await ground.open(workspace=workspace.path, max_file_bytes=limit)
            code = f"open('big', 'wb').write(bytes({8 * _MIB}))"
            argv = [ground.values["python"], "-I", "-S", "-c", _DEFAULT_SIGNAL + code]
            result = await sandbox.run(Command(argv=argv))
            alive = await sandbox.run(Command(script="echo alive"))
            await sandbox.close()
            if result.exit_code == -signal.SIGXFSZ and alive.output == "alive\n":
                return f"SIGXFSZ at {_size(workspace)}"
        return _size(workspace)


def _size(workspace: Fresh) -> str:
    return f"{(workspace.path / 'big').stat().st_size // _MIB} MiB"


_DEFAULT_SIGNAL = "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_DFL); "


async def full_scratch(ground: Ground) -> str:
    """More than 1 GiB reserved where temporary files go, and let go at once."""
    code = (
        "import errno, os, sys\n"
        "fd = os.open(sys.argv[1], os.O_TMPFILE | os.O_RDWR)\n"
        "try:\n"
        "    os.posix_fallocate(fd, 0, 1100 << 20)\n"
        "    print('ok')\n"
        "except OSError as error:\n"
        "    print(errno.errorcode[error.errno])\n"
    )
    sandbox = await ground.open(max_file_bytes=4 << 30)
    place = "/tmp" if ground.backend == "bubblewrap" else str(ground.root)
    if ground.backend == "landlock":
        place = (await sandbox.run(Command(script='printf %s "$TMPDIR"'))).output
    argv = [ground.values["python"], "-I", "-S", "-c", code, place]
    result = await sandbox.run(Command(argv=argv))
    await sandbox.close()
    return result.output.strip()
