"""The near end of the way out, inside the sandbox: a loopback port that leads to the proxy's socket.

Programs know proxies by address and port, the proxy is a unix socket. Standard library only: it
runs as a script with ``python -I -S``. It decides nothing, so it needs no trust: a command that
kills it has no network.

``forwarder.py SOCKET PORT FILTER ARGV...``: once the port answers, this process becomes ARGV; the
copying is done by a grandchild that pid 1 of the sandbox adopts. FILTER is a seccomp program in
hexadecimal that holds for ARGV and not for the copying, or empty.
"""

import errno
import os
import runpy
import selectors
import socket
import sys

PORT = 3128
_PIECE_BYTES = 1 << 16
_MAX_PENDING_BYTES = 1 << 20


class _Pair:
    """Two connected sockets and what is on its way from one to the other."""

    def __init__(
        self, selector: selectors.BaseSelector, a: socket.socket, b: socket.socket
    ) -> None:
        self.selector = selector
        self.ends = (a, b)
        self.pending = (bytearray(), bytearray())
        """``pending[i]`` waits to be written to ``ends[i]``."""
        self.has_ended = [False, False]
        """Whether ``ends[i]`` has sent everything it will."""
        self.is_shut = [False, False]
        """Whether ``ends[i]`` was told that nothing more comes."""
        for end in self.ends:
            end.setblocking(False)
            selector.register(end, selectors.EVENT_READ, self)

    def on_event(self, end: socket.socket, mask: int) -> None:
        """Copy what can be copied now; close both when either breaks or both have ended."""
        this = self.ends.index(end)
        try:
            if mask & selectors.EVENT_WRITE:
                self.write(this)
            if mask & selectors.EVENT_READ:
                self.read(this)
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        if all(self.is_shut):
            self.close()
            return
        for one in (0, 1):
            self.rearm(one)

    def read(self, this: int) -> None:
        data = self.ends[this].recv(_PIECE_BYTES)
        if data:
            self.pending[1 - this].extend(data)
        else:
            self.has_ended[this] = True
        self.write(1 - this)

    def write(self, this: int) -> None:
        waiting = self.pending[this]
        if waiting:
            del waiting[: self.ends[this].send(waiting)]
        if not waiting and self.has_ended[1 - this] and not self.is_shut[this]:
            self.is_shut[this] = True
            self.ends[this].shutdown(socket.SHUT_WR)

    def rearm(self, this: int) -> None:
        """Read only while the other side takes it; write only while there is something."""
        has_room = len(self.pending[1 - this]) < _MAX_PENDING_BYTES
        mask = 0
        if not self.has_ended[this] and has_room:
            mask |= selectors.EVENT_READ
        if self.pending[this]:
            mask |= selectors.EVENT_WRITE
        end = self.ends[this]
        is_registered = end in self.selector.get_map()
        if mask and is_registered:
            if self.selector.get_key(end).events != mask:
                self.selector.modify(end, mask, self)
        elif mask:
            self.selector.register(end, mask, self)
        elif is_registered:
            self.selector.unregister(end)

    def close(self) -> None:
        for end in self.ends:
            if end in self.selector.get_map():
                self.selector.unregister(end)
            end.close()


def forward(listener: socket.socket, path: str) -> None:
    """Every connection to the listener is one to the unix socket at ``path``, until it is shut."""
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    while True:
        closed: set[int] = set()
        for key, mask in selector.select():
            if key.fileobj is listener:
                if not accept(selector, listener, path):
                    return
            elif key.fd not in closed:
                pair = key.data
                fds = {end.fileno() for end in pair.ends}
                pair.on_event(key.fileobj, mask)
                if pair.ends[0].fileno() < 0:
                    closed |= fds


def accept(selector: selectors.BaseSelector, listener: socket.socket, path: str) -> bool:
    """One more pair; a client whose connection cannot be passed on is hung up on.

    False when the listener takes no more.
    """
    try:
        near = listener.accept()[0]
    except OSError as error:
        return error.errno not in (errno.EINVAL, errno.EBADF)
    far = socket.socket(socket.AF_UNIX)
    try:
        far.connect(path)
    except OSError:
        near.close()
        far.close()
        return True
    _Pair(selector, near, far)
    return True


def main() -> None:
    """Listen, leave the copying to a grandchild, become the program."""
    path, port, filter_program, argv = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4:]
    listener = socket.create_server(("127.0.0.1", port), backlog=128)
    child = os.fork()
    if child == 0:
        if os.fork() == 0:
            null = os.open(os.devnull, os.O_RDWR)
            for fd in (0, 1, 2):
                os.dup2(null, fd)
            # Not the program's connection to the outside: it would stay open after it.
            kept = listener.fileno()
            os.closerange(3, kept)
            os.closerange(kept + 1, 4096)
            forward(listener, path)
        os._exit(0)
    os.waitpid(child, 0)
    listener.close()
    if filter_program:  # by its place: this script knows no packages
        seccomp = runpy.run_path(os.path.join(os.path.dirname(__file__), "seccomp.py"))
        seccomp["install"](bytes.fromhex(filter_program))
    os.execvp(argv[0], argv)


if __name__ == "__main__":
    main()
