"""The one process that starts commands inside the sandbox.

Standard library only: it runs as a script with ``python -I -S``, without this package. One
SOCK_SEQPACKET connection carries JSON messages; the pipe for a command's output comes along as
a file descriptor, so output never passes through this process.

In::

    {"op": "config", "environment": {}, "limits": {"NPROC": n}, "zygote": [argv] or null}
    {"op": "run", "id", "argv", "cwd", "environment", "warm": {...} or null}   + output fd
    {"op": "kill", "id"}

Out::

    {"op": "ready", "status": {"CapEff": "0000", ...}}
    {"op": "exit", "id", "code", "how"}        after every process of the command is gone
    {"op": "failed", "id", "code", "message"}  the program could not be started
    {"op": "zygote", "state"}                  ready, refused or gone
"""

import array
import ctypes
import errno
import json
import os
import resource
import select
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

MAX_MESSAGE_BYTES = 200_000
MARKER = "TIGHTLOOP_COMMAND"
_RESTORED_SIGNALS = (signal.SIGPIPE, signal.SIGXFSZ)  # Python ignores them; commands must not
_PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER = 4, 36
_ZYGOTE_STARTS = 2


class Running:
    """One command under way. ``pid`` is 0 until a warm run has reported its process."""

    __slots__ = ("environment", "is_warm", "message", "output", "pid", "pidfd")

    def __init__(self, message: dict[str, Any], environment: dict[str, str]) -> None:
        self.message = message
        self.environment = environment
        self.pid = 0
        self.pidfd = -1
        self.output = -1  # kept open only while a warm run may still fall back to a cold one
        self.is_warm = False


class Server:
    """Starts, watches and ends commands; single-threaded, woken by epoll only."""

    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self.poll = select.epoll()
        self.handlers: dict[int, Callable[[], None]] = {}
        self.environment: dict[str, str] = {}
        self.running: dict[int, Running] = {}
        self.zygote: socket.socket | None = None
        self.zygote_pid = 0
        self.zygote_argv: list[str] | None = None
        self.zygote_starts = 0
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
        except EOFError:
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
            self.on_run(message, fds[0])
        elif message["op"] == "kill":
            self.on_kill(message["id"])
        elif message["op"] == "config":
            self.on_config(message)

    def on_config(self, message: dict[str, Any]) -> None:
        self.environment = message["environment"]
        for name, value in message["limits"].items():
            which = getattr(resource, "RLIMIT_" + name)
            _, hard = resource.getrlimit(which)
            limit = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(which, (limit, limit))
        with open("/proc/self/status") as lines:
            fields = dict(line.rstrip("\n").split(":\t", 1) for line in lines if ":\t" in line)
        wanted = ("CapEff", "CapPrm", "NoNewPrivs", "Seccomp")
        self.send({"op": "ready", "status": {name: fields.get(name, "") for name in wanted}})
        self.zygote_argv = message.get("zygote")
        if self.zygote_argv:
            self.start_zygote()

    def on_run(self, message: dict[str, Any], output: int) -> None:
        number = message["id"]
        environment = {**self.environment, **message["environment"], MARKER: str(number)}
        run = self.running[number] = Running(message, environment)
        if message["warm"] is not None and self.zygote is not None:
            run.output, run.is_warm = output, True
            if self.ask_zygote(run):
                return
            run.output, run.is_warm = -1, False
        try:
            self.spawn(run, output)
        finally:
            os.close(output)

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

    def spawn(self, run: Running, output: int) -> None:
        message, number = run.message, run.message["id"]
        try:
            os.chdir(message["cwd"])
            program = find_program(message["argv"][0], run.environment.get("PATH", os.defpath))
            run.pid = os.posix_spawn(
                program,
                message["argv"],
                run.environment,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, self.null, 0),
                    (os.POSIX_SPAWN_DUP2, output, 1),
                    (os.POSIX_SPAWN_DUP2, output, 2),
                ],
                setpgroup=0,
                setsigdef=_RESTORED_SIGNALS,
            )
        except OSError as error:
            del self.running[number]
            code = 127 if error.errno == errno.ENOENT else 126
            text = f"{error.filename or message['argv'][0]}: {error.strerror}"
            self.send({"op": "failed", "id": number, "code": code, "message": text})
            return
        finally:
            os.chdir("/")
        self.follow(number, run)

    def follow(self, number: int, run: Running) -> None:
        try:
            run.pidfd = os.pidfd_open(run.pid)
        except ProcessLookupError:  # a zygote reaped it and died before it could say so
            del self.running[number]
            self.finish(number, -signal.SIGKILL, "warm-pytest")
            return
        self.watch(run.pidfd, lambda: self.on_process_end(number))

    def on_process_end(self, number: int) -> None:
        run = self.running.pop(number)
        self.unwatch(run.pidfd)
        os.close(run.pidfd)
        self.signal_group(run.pid)  # before reaping: the zombie keeps the group id ours
        _, status = os.waitpid(run.pid, 0)
        how = "warm-pytest" if run.is_warm else "spawn"
        self.finish(number, os.waitstatus_to_exitcode(status), how)

    def finish(self, number: int, code: int, how: str) -> None:
        self.end_strays(str(number))
        self.send({"op": "exit", "id": number, "code": code, "how": how})

    def signal_group(self, pid: int) -> None:
        try:
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        except PermissionError:
            os.kill(pid, signal.SIGKILL)

    # -- processes that outlived their command

    def end_strays(self, marker: str | None) -> None:
        """No process of the command is left, not even one with its own session.

        Orphans come to us as the nearest subreaper. Whose they are says their environment; when
        no other command runs, they can only be of this one.
        """
        kept: set[int] = set()
        while strays := self.strays() - kept:
            for pid in strays:
                alone = marker is None or not self.running
                if (
                    not alone and not has_marker(pid, f"{MARKER}={marker}".encode())
                ) or not end_process(pid):
                    kept.add(pid)

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
        try:
            socket.send_fds(self.zygote, [json.dumps(request).encode()], [run.output])
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
        run = self.running.get(message["id"])
        if run is None:
            return
        if state == "started":
            run.pid = message["pid"]
            self.close_output(run)
        elif state == "declined":
            if message["reason"] == "stale":
                self.zygote_starts = 0  # it ends by itself now; that is no failure
            self.run_cold(run)
        elif state == "ended":
            self.close_output(run)
            del self.running[message["id"]]
            self.finish(message["id"], message["code"], "warm-pytest")

    def run_cold(self, run: Running) -> None:
        output, run.output, run.is_warm = run.output, -1, False
        try:
            self.spawn(run, output)
        finally:
            os.close(output)

    def close_output(self, run: Running) -> None:
        if run.output >= 0:
            os.close(run.output)
            run.output = -1

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


def receive(connection: socket.socket) -> tuple[bytes, list[int]]:
    """One message and the descriptors that came with it, closed on exec.

    Not ``socket.recv_fds``: it leaves out its flags (CPython 3.11), and the output pipe of a
    command would then be open in the next one.
    """
    size = socket.CMSG_SPACE(array.array("i", [0]).itemsize)
    data, extra, _, _ = connection.recvmsg(MAX_MESSAGE_BYTES, size, socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, payload in extra:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    return data, list(fds)


def find_program(name: str, path: str) -> str:
    """Full path of a program by the command's own PATH. Raises FileNotFoundError."""
    if "/" in name:
        return name
    for directory in path.split(":"):
        candidate = os.path.join(directory or ".", name)
        if os.access(candidate, os.X_OK) and not os.path.isdir(candidate):
            return candidate
    raise FileNotFoundError(errno.ENOENT, "command not found", name)


def has_marker(pid: int, entry: bytes) -> bool:
    """Whether the process was started with this entry in its environment."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return entry in file.read().split(b"\0")
    except OSError:
        return False


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
    # Otherwise a command could write into this process through /proc/PID/mem.
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    try:
        Server(control).serve()
    except (BrokenPipeError, ConnectionResetError):
        sys.exit(0)


if __name__ == "__main__":
    main()
