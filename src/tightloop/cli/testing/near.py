"""The near end: finds or starts the background process, hands the request over, copies what comes.

Its processor time is what a warm run costs at least, so it imports two small modules of the
interpreter itself (``socket`` alone would cost half as much again as the interpreter's start).
Messages (SOCK_SEQPACKET, the first byte says what): to us ``a`` taken on, ``o`` for standard
output, ``e`` for standard error, ``r`` not by this process and why, ``x`` the exit code, then the
last line. From us: the request, then ``i`` for each interrupt.
"""

import _signal  # type: ignore[import-not-found]
import _socket
import os
import sys
import time

from tightloop.cli.testing import asked as asking
from tightloop.cli.testing.asked import Asked, BadUsage
from tightloop.cli.testing.link import (
    MAX_MESSAGE_BYTES,
    Gone,
    Unusable,
    connect,
    end_silent,
    say,
    write,
)

TYPE_CHECKING = False  # typing's own would have to be imported
if TYPE_CHECKING:
    from collections.abc import Sequence

CANNOT_RUN = 125
"""Our own exit code where there is no verdict; ``git bisect run`` skips such a commit."""
_BROKEN_PIPE = 141
_INTERRUPTED = 130
_MAX_STARTS = 3


class Near:
    """One command line, from the request to the exit code."""

    def __init__(self, request: Asked, state: str) -> None:
        self.request = request
        self.state = state
        self.connection: _socket.socket | None = None
        self.num_interrupts = 0
        self.has_begun = False

    def run(self) -> int:
        """The exit code: that of the run, or ``CANNOT_RUN`` with a line that says why."""
        before = _signal.signal(_signal.SIGINT, self._on_interrupt)
        try:
            return self._attempts()
        except BrokenPipeError:  # nobody reads standard output any more
            return _BROKEN_PIPE
        except Unusable as error:
            say(str(error))
            return CANNOT_RUN
        except OSError as error:  # a full disk, a directory that cannot be written
            say(f"no verdict: {error}; --state-dir names another place than {self.state}")
            return CANNOT_RUN
        finally:
            self._hang_up()
            _signal.signal(_signal.SIGINT, before)

    def _attempts(self) -> int:
        for _ in range(_MAX_STARTS):
            try:
                self.connection = connect(self.state, self.request.name)
            except Gone:
                self._start()
            try:
                return self._converse()
            except Gone:
                self._hang_up()
                self._again()
        raise Unusable("the background process ends again and again: see its log in " + self.state)

    def _hang_up(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close()

    def _start(self) -> None:
        from tightloop.cli.testing.starting import start

        self.connection = start(self.state, self.request)

    def _again(self) -> None:
        """The process died. What had begun is run again, and cold: what it said may be half a run."""
        if self.num_interrupts:
            raise Unusable("interrupted while the background process ended")
        if self.has_begun:
            say("the background process died in the middle: running it again, cold")
            self.request.mode = self.request.mode or "cold"
            self.has_begun = False

    def _converse(self) -> int:
        connection = self.connection
        assert connection is not None
        data = self.request.encode()
        if len(data) > asking.MAX_REQUEST_BYTES:
            raise Unusable(
                f"the arguments take {len(data)} bytes, at most {asking.MAX_REQUEST_BYTES} are "
                "possible: name directories instead of files"
            )
        try:
            connection.send(data)
            message = connection.recv(MAX_MESSAGE_BYTES)
        except TimeoutError:
            end_silent(connection)
            raise Gone from None
        except OSError:
            raise Gone from None
        connection.settimeout(None)
        while message:
            kind, content = message[:1], message[1:]
            if kind == b"a":
                self.has_begun = True
            elif kind == b"o":
                write(1, content)
            elif kind == b"e":
                write(2, content)
            elif kind == b"x":
                code, _, line = content.partition(b"\0")
                write(2, line)
                return int(code)
            elif kind == b"r":
                say(content.decode(errors="replace"))
                raise Gone
            try:
                message = connection.recv(MAX_MESSAGE_BYTES)
            except OSError:
                break
        raise Gone

    def _on_interrupt(self, _number: int, _frame: object) -> None:
        """The run is interrupted, then killed; the third time we go, and it is killed by that."""
        self.num_interrupts += 1
        if self.num_interrupts > 2 or self.connection is None:
            os._exit(_INTERRUPTED)
        try:
            self.connection.send(b"i")
        except OSError:
            os._exit(_INTERRUPTED)


def main(verb: str, words: "Sequence[str]") -> int:
    """Run one command line of ``verb``."""
    if sys.platform != "linux":
        say(f"{verb}: warm runs need Linux, this is {sys.platform}")
        return CANNOT_RUN
    began_ns = time.monotonic_ns()  # noqa: TID251 - trace.clock would have to import datetime
    environment = dict(os.environ)
    try:
        given = list(words)
        own, _ = asking.read_words(verb, given)
        request = asking.ask(verb, given, environment, os.getcwd(), began_ns)
    except BadUsage as error:
        say(f"{verb}: {error}")
        return CANNOT_RUN
    except FileNotFoundError:
        say("the current directory is gone")
        return CANNOT_RUN
    state = asking.state_place(own.get("state_dir", ""), environment)
    if request.action == asking.RUN:
        return Near(request, state).run()
    from tightloop.cli.testing.managing import manage

    return manage(state, request, is_json=bool(request.is_json))
