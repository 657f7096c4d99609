"""The one process that starts commands inside the sandbox.

Standard library only: it runs as a script with ``python -I -S``, without this package. One
SOCK_SEQPACKET connection carries JSON messages; a command's streams come along as descriptors,
so that output never passes through this process.

In::

    {"op": "config", "environment": {}, "limits": {"NPROC": n}, "zygote": [argv] or null, "tag": n,
     "writable": [paths] or null}              with descriptors of more: the second wall from here on
    {"op": "run", "id", "argv", "cwd", "environment", "warm": {...} or null,
     "terminal": [rows, columns], "limits": {"CPU": n}, "report": true}   + see ``Running.fds``
    {"op": "signal", "id", "number"}
    {"op": "kill", "id"}
    {"op": "refresh"}                          files have changed: for the warm test process
    {"op": "settle"}                           answered when that has nothing left to learn
    {"op": "remember", "places"}               what is there now is what "clear" leaves there
    {"op": "clear"}                            the next use finds nothing of those before

Out::

    {"op": "ready", "status": {"CapEff": "0000", ...}, "has_terminals": true, "landlock": abi or 0}
    {"op": "exit", "id", "code", "how"}        after every process of the command is gone
    {"op": "failed", "id", "code", "message"}  the program could not be started
    {"op": "zygote", "state"}                  ready, refused or gone
    {"op": "settled"}                          also where there is no warm test process
    {"op": "cleared", "reason"}                empty, or why this sandbox may not be used again
"""

import array
import ctypes
import errno
import importlib.machinery
import json
import os
import resource
import select
import signal
import socket
import sys
import types
from collections.abc import Callable
from typing import Any

MAX_MESSAGE_BYTES = 200_000
MARKER = "TIGHTLOOP_COMMAND"
_RESTORED_SIGNALS = (signal.SIGPIPE, signal.SIGXFSZ)  # Python ignores them; commands must not
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER = 1, 4, 36
_ZYGOTE_STARTS = 2
NUM_TAGS = 1 << 30
_MAX_ROUNDS = 2000


class Outnumbered(Exception):
    """Processes are made faster than they can be ended."""


class Running:
    """One command under way. ``pid`` is 0 until a warm run has reported its process.

    ``fds`` are what came with the request: the output pipe, and the input if it is not empty, or a
    pipe for the report of a warm run; for a terminal its far end, or the channel through which one
    made here goes out. A warm run keeps them while it may still fall back to a cold one. ``how``
    is which path ran it.
    """

    __slots__ = ("environment", "fds", "how", "is_warm", "message", "pid", "pidfd")

    def __init__(
        self, message: dict[str, Any], environment: dict[str, str], fds: list[int]
    ) -> None:
        self.message = message
        self.environment = environment
        self.fds = fds
        self.pid = 0
        self.pidfd = -1
        self.is_warm = False
        self.how = "spawn"

    def close_fds(self) -> None:
        for fd in self.fds:
            os.close(fd)
        self.fds.clear()


class Server:
    """Starts, watches and ends commands; single-threaded, woken by epoll only."""

    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self.poll = select.epoll()
        self.handlers: dict[int, Callable[[], None]] = {}
        self.environment: dict[str, str] = {}
        self.running: dict[int, Running] = {}
        self.tag = 0
        self.zygote: socket.socket | None = None
        self.zygote_pid = 0
        self.zygote_argv: list[str] | None = None
        self.zygote_starts = 0
        self.scratch: Any = None
        self.is_clearing = False
        self.null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self.null_out = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        self.watch(control.fileno(), self.on_control)

    def serve(self) -> None:
        """Serve until the other side closes the connection, then end every process."""
        try:
            while True:
                for fd, _ in self.poll.poll():
                    handler = self.handlers.get(fd)
                    if handler is not None:
                        handler()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            self.end_everything()

    def watch(self, fd: int, handler: Callable[[], None]) -> None:
        self.handlers[fd] = handler
        self.poll.register(fd, select.EPOLLIN)

    def unwatch(self, fd: int) -> None:
        del self.handlers[fd]
        self.poll.unregister(fd)

    def send(self, message: dict[str, Any]) -> None:
        self.control.sendall(json.dumps(message).encode())

    # -- messages from outside

    def on_control(self) -> None:
        data, fds = receive(self.control)
        if not data:
            raise EOFError
        message = json.loads(data)
        if message["op"] == "run":
            self.on_run(message, fds)
        elif message["op"] == "kill":
            self.on_kill(message["id"])
        elif message["op"] == "signal":
            self.on_signal(message["id"], message["number"])
        elif message["op"] == "config":
            self.on_config(message, fds)
        elif message["op"] in ("refresh", "settle"):
            self.tell_zygote(message["op"])
        elif message["op"] == "remember":
            self.scratch = sibling("scratch").Scratch(message["places"])
        elif message["op"] == "clear":
            self.on_clear()

    def on_config(self, message: dict[str, Any], fds: list[int]) -> None:
        version = 0
        if message.get("writable") is not None:
            version = sibling("landlock").restrict_writing([*message["writable"], *fds])
        for fd in fds:
            os.close(fd)
        self.environment = message["environment"]
        for name, value in message["limits"].items():
            lower_limit(name, value)
        with open("/proc/self/status") as lines:
            fields = dict(line.rstrip("\n").split(":\t", 1) for line in lines if ":\t" in line)
        wanted = ("CapEff", "CapPrm", "NoNewPrivs", "Seccomp")
        status = {name: fields.get(name, "") for name in wanted}
        answer = {"status": status, "has_terminals": has_terminals(), "landlock": version}
        self.send({"op": "ready", **answer})
        hard = resource.getrlimit(resource.RLIMIT_RTTIME)[1]
        self.tag = message["tag"] if hard == resource.RLIM_INFINITY else 0
        self.zygote_argv = message.get("zygote")
        if self.zygote_argv:
            self.start_zygote()

    def on_run(self, message: dict[str, Any], fds: list[int]) -> None:
        number = message["id"]
        environment = {**self.environment, **message["environment"], MARKER: str(number)}
        run = self.running[number] = Running(message, environment, fds)
        if message["warm"] is not None and self.zygote is not None:
            run.is_warm = True
            if self.ask_zygote(run):
                return
        self.run_cold(run)

    def on_signal(self, number: int, signal_number: int) -> None:
        run = self.running.get(number)
        if run is not None and run.pid:
            self.signal_group(run.pid, signal_number)

    def tell_zygote(self, operation: str) -> None:
        """A full queue is no loss: it then has enough to look at before it comes to this one."""
        message = json.dumps({"op": operation, "id": 0}).encode()
        try:
            if self.zygote is not None:
                self.zygote.send(message, socket.MSG_DONTWAIT)
                return
        except OSError:
            pass
        if operation == "settle":
            self.send({"op": "settled"})

    def on_clear(self) -> None:
        for number in list(self.running):
            self.on_kill(number)
        self.is_clearing = True
        self.clear_if_idle()

    def clear_if_idle(self) -> None:
        """Only the warm test processes are left, and what was there when told to remember."""
        if self.is_clearing and not self.running:
            self.is_clearing = False
            self.end_strays(None)
            self.send({"op": "cleared", "reason": self.scratch.clear()})

    def on_kill(self, number: int) -> None:
        run = self.running.get(number)
        if run is None:
            return
        if run.pid:
            self.signal_group(run.pid)
        else:
            self.zygote_failed()  # it sits on the request: replace it, nothing has run yet
            run = self.running.get(number)
            if run is not None and run.pid:
                self.signal_group(run.pid)

    # -- cold commands

    def run_cold(self, run: Running) -> None:
        run.is_warm, run.how = False, "spawn"
        try:
            self.spawn(run)
        finally:
            run.close_fds()

    def spawn(self, run: Running) -> None:
        message, number = run.message, run.message["id"]
        self.tag_children(number)
        try:
            os.chdir(message["cwd"])
            program = find_program(message["argv"][0], run.environment.get("PATH", os.defpath))
            if "terminal" in message or "limits" in message:
                run.pid = self.fork(program, run)
            else:
                read, write, _ = self.streams(run)
                run.pid = os.posix_spawn(
                    program,
                    message["argv"],
                    run.environment,
                    file_actions=[
                        (os.POSIX_SPAWN_DUP2, read, 0),
                        (os.POSIX_SPAWN_DUP2, write, 1),
                        (os.POSIX_SPAWN_DUP2, write, 2),
                    ],
                    setpgroup=0,
                    setsigdef=_RESTORED_SIGNALS,
                )
        except (OSError, ValueError) as error:
            del self.running[number]
            code, text = why_not_started(error, message["argv"][0])
            self.send({"op": "failed", "id": number, "code": code, "message": text})
            self.clear_if_idle()
            return
        finally:
            os.chdir("/")
        self.follow(number, run)

    def fork(self, program: str, run: Running) -> int:
        def prepare() -> None:
            for number in _RESTORED_SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            for name, value in run.message.get("limits", {}).items():
                lower_limit(name, value)

        start = sibling("forked_start").fork_and_exec
        pid: int = start(program, run.message["argv"], run.environment, self.streams(run), prepare)
        return pid

    def streams(self, run: Running) -> tuple[int, int, bool]:
        """What the command reads from and writes to, and whether that is a terminal."""
        size = run.message.get("terminal")
        if size is None:
            has_input = len(run.fds) > 1 and not run.message.get("report")
            return (run.fds[1] if has_input else self.null), run.fds[0], False
        if run.message["is_made_inside"]:
            run.fds.append(sibling("forked_start").make_terminal(size, run.fds[0]))
        return run.fds[-1], run.fds[-1], True

    def tag_children(self, number: int) -> None:
        """What is started from now on is known as the command's, whatever it does to its variables.

        The tag is a limit that means nothing without real-time scheduling; children inherit it.
        """
        if self.tag:
            tag = self.tag + number
            resource.setrlimit(resource.RLIMIT_RTTIME, (tag, resource.RLIM_INFINITY))

    def follow(self, number: int, run: Running) -> None:
        try:
            run.pidfd = os.pidfd_open(run.pid)
        except ProcessLookupError:  # a zygote reaped it and died before it could say so
            del self.running[number]
            self.finish(number, -signal.SIGKILL, run.how)
            return
        self.watch(run.pidfd, lambda: self.on_process_end(number))

    def on_process_end(self, number: int) -> None:
        run = self.running.pop(number)
        self.unwatch(run.pidfd)
        os.close(run.pidfd)
        self.signal_group(run.pid)  # before reaping: the zombie keeps the group id ours
        self.finish(number, reap(run.pid), run.how)

    def finish(self, number: int, code: int, how: str) -> None:
        self.end_strays(number)
        self.send({"op": "exit", "id": number, "code": code, "how": how})
        self.clear_if_idle()

    def signal_group(self, pid: int, number: int = signal.SIGKILL) -> None:
        try:
            os.killpg(pid, number)
        except ProcessLookupError:
            pass
        except PermissionError:
            os.kill(pid, number)

    # -- processes that outlived their command

    def end_strays(self, number: int | None) -> None:
        """No process of the command is left, not even one with its own session.

        Orphans come to us as the nearest subreaper. Whose they are says their tag, or for warm
        runs their environment; when no other command runs, they can only be of this one.
        """
        kept: set[int] = set()
        for _ in range(_MAX_ROUNDS):
            strays = self.strays() - kept
            if not strays:
                return
            for pid in strays:
                if not self.is_left_by(pid, number) or not end_process(pid):
                    kept.add(pid)
        raise Outnumbered

    def is_left_by(self, pid: int, number: int | None) -> bool:
        if number is None or not self.running:
            return True
        owner = tag_of(pid, self.tag) if self.tag else 0
        if owner:
            return owner not in self.running
        return has_marker(pid, f"{MARKER}={number}".encode())

    def strays(self) -> set[int]:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            children = {int(pid) for pid in file.read().split()}
        return children - {run.pid for run in self.running.values()} - {self.zygote_pid}

    def end_everything(self) -> None:
        for run in self.running.values():
            if run.pid:
                self.signal_group(run.pid)
        self.running.clear()
        self.zygote_pid = 0
        self.end_strays(None)

    # -- warm commands

    def start_zygote(self) -> None:
        assert self.zygote_argv is not None
        self.zygote_starts += 1
        self.tag_children(0)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        argv = [*self.zygote_argv, "3"]
        try:
            self.zygote_pid = os.posix_spawn(
                argv[0],
                argv,
                self.environment,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, theirs.fileno(), 3),
                    (os.POSIX_SPAWN_DUP2, self.null, 0),
                    (os.POSIX_SPAWN_DUP2, self.null_out, 1),
                    (os.POSIX_SPAWN_DUP2, self.null_out, 2),
                ],
                setpgroup=0,
                setsigdef=_RESTORED_SIGNALS,
            )
        except OSError:
            ours.close()
            self.send({"op": "zygote", "state": "refused"})
            return
        finally:
            theirs.close()
        self.zygote = ours
        self.watch(ours.fileno(), self.on_zygote)

    def ask_zygote(self, run: Running) -> bool:
        assert self.zygote is not None
        message = run.message
        request = {
            "id": message["id"],
            "cwd": message["cwd"],
            "environment": {**message["environment"], MARKER: str(message["id"])},
            **message["warm"],
        }
        if message.get("report"):
            request["report"] = True
        try:
            socket.send_fds(self.zygote, [json.dumps(request).encode()], run.fds)
        except OSError:
            return False
        return True

    def on_zygote(self) -> None:
        assert self.zygote is not None
        try:
            data = self.zygote.recv(MAX_MESSAGE_BYTES)
        except OSError:
            data = b""
        if not data:
            self.zygote_failed()
            return
        message = json.loads(data)
        state = message["state"]
        if state in ("ready", "refused"):
            if state == "refused":
                self.zygote_starts = _ZYGOTE_STARTS  # another start would end the same way
            self.send({"op": "zygote", **message})
            return
        if state == "settled":
            self.send({"op": "settled"})
            return
        run = self.running.get(message["id"])
        if run is None:
            return
        if state == "started":
            run.pid = message["pid"]
            run.how = "-".join(filter(None, ("warm-pytest", message.get("level"))))
            run.close_fds()
        elif state == "declined":
            if message["reason"] == "stale":
                self.zygote_starts = 0  # it ends by itself now; that is no failure
            self.run_cold(run)
        elif state == "ended":
            run.close_fds()
            del self.running[message["id"]]
            self.finish(message["id"], message["code"], run.how)

    def zygote_failed(self) -> None:
        """No command is lost: runs that had begun become ours to wait for, the others go cold."""
        assert self.zygote is not None
        self.unwatch(self.zygote.fileno())
        self.zygote.close()
        self.zygote = None
        end_process(self.zygote_pid)
        self.zygote_pid = 0
        waiting = []
        for number, run in list(self.running.items()):
            if run.is_warm and run.pidfd < 0:
                if run.pid:
                    self.follow(number, run)  # reparented to us when the zygote died
                else:
                    waiting.append(run)
        self.send({"op": "zygote", "state": "gone"})
        if self.zygote_starts < _ZYGOTE_STARTS:
            self.start_zygote()
        for run in waiting:
            self.run_cold(run)


def sibling(name: str) -> types.ModuleType:
    """The module of a file beside this one, loaded once it is needed.

    Nothing of this package is on the search path of a script.
    """
    known = sys.modules.get(name)
    if known is None:
        path = os.path.join(os.path.dirname(os.path.abspath(__file__)), name + ".py")
        known = sys.modules[name] = types.ModuleType(name)
        importlib.machinery.SourceFileLoader(name, path).exec_module(known)
    return known


def receive(connection: socket.socket) -> tuple[bytes, list[int]]:
    """One message and the descriptors that came with it, closed on exec.

    Not ``socket.recv_fds``: it leaves out its flags (CPython 3.11), and the output pipe of a
    command would then be open in the next one.
    """
    size = socket.CMSG_SPACE(2 * array.array("i").itemsize)
    data, extra, _, _ = connection.recvmsg(MAX_MESSAGE_BYTES, size, socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, payload in extra:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    return data, list(fds)


def tag_of(pid: int, base: int) -> int:
    """The number of the command that the process was started for; 0 when it has none."""
    try:
        number = resource.prlimit(pid, resource.RLIMIT_RTTIME)[0] - base
    except OSError:
        return 0
    return number if 0 < number < NUM_TAGS else 0


def has_terminals() -> bool:
    """Whether terminals can be made in here; not where the devices are those of the host."""
    try:
        os.close(os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def lower_limit(name: str, value: int) -> None:
    """The limit holds for this process and its children; one that is tighter already stays."""
    which = getattr(resource, "RLIMIT_" + name)
    _, hard = resource.getrlimit(which)
    limit = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (limit, limit))


def find_program(name: str, path: str) -> str:
    """Full path of a program by the command's own PATH. Raises FileNotFoundError."""
    if "/" in name:
        return name
    for directory in path.split(":"):
        candidate = os.path.join(directory or ".", name)
        if os.access(candidate, os.X_OK) and not os.path.isdir(candidate):
            return candidate
    raise FileNotFoundError(errno.ENOENT, "command not found", name)


def why_not_started(error: OSError | ValueError, program: str) -> tuple[int, str]:
    """Exit code and words, as a shell has them. A NUL in an argument is a ValueError."""
    if not isinstance(error, OSError):
        return 126, f"no program can be started with this command: {error}"
    code = 127 if error.errno == errno.ENOENT else 126
    return code, f"{error.filename or program}: {error.strerror}"


def has_marker(pid: int, entry: bytes) -> bool:
    """Whether the process was started with this entry in its environment."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return entry in file.read().split(b"\0")
    except OSError:
        return False


def reap(pid: int) -> int:
    """Exit code of a process that has ended; that of SIGKILL when somebody else reaped it.

    A warm run whose parent is dying becomes our child a moment later.
    """
    for _ in range(1000):
        try:
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        except ChildProcessError:
            if not os.path.exists(f"/proc/{pid}"):
                break
            select.select([], [], [], 0.001)
    return -signal.SIGKILL


def end_process(pid: int) -> bool:
    """True when the child is dead and reaped; False when the kernel holds it in a wait."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return True
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        select.select([pidfd], [], [], 1.0)
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except (ProcessLookupError, ChildProcessError):
        return True
    finally:
        os.close(pidfd)


def main() -> None:
    """Serve on the inherited descriptor named by the first argument."""
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    # When the agent dies we see the end of the connection, and end all of ours before ourselves. A
    # signal would leave them; namespaces end by the death of their first process, not of this one.
    libc.prctl(_PR_SET_PDEATHSIG, 0, 0, 0, 0)
    # Otherwise a command could write into this process through /proc/PID/mem.
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    try:
        Server(control).serve()
    except Outnumbered:
        sys.exit(1)  # where processes have a namespace of their own, this ends them


if __name__ == "__main__":
    main()
