"""Which process with project modules serves which command."""

import os
import socket
from typing import Any

from tightloop.sandbox.warm.building import Learnt, Lesson
from tightloop.sandbox.warm.stamps import Tree
from tightloop.sandbox.warm.uppers import Upper, Uppers, key_of, with_modules, with_tests
from tightloop.sandbox.warm.wire import receive

LESSON = Lesson({}, Learnt({}, {}, []), Tree("/proc/self/task/nothing"))


def request(number: int, *args: str) -> dict[str, Any]:
    """As the exec server sends it."""
    return {
        "id": number,
        "args": list(args),
        "program": "/usr/bin/python",
        "is_module": True,
        "is_script": False,
        "environment": {"TIGHTLOOP_COMMAND": str(number)},
    }


def test_a_command_is_known_word_for_word() -> None:
    """Another selection imports other modules."""
    assert key_of(request(1, "-q", "a.py")) == key_of(request(2, "-q", "a.py"))
    assert key_of(request(1, "-q", "a.py")) != key_of(request(1, "-q", "b.py"))


def test_few_are_kept_and_the_last_used_stay() -> None:
    """A new one for the same command takes the place of the old one."""
    uppers, made = Uppers(), []
    gone: list[Upper] = []
    for name in "abcad":
        made.append(Upper(socket.socket(socket.AF_UNIX), 0, LESSON))
        gone += uppers.add(with_modules(request(1, name)), made[-1])
        assert uppers.of(with_modules(request(1, "b"))) is (made[1] if len(made) > 1 else None)
    assert gone == [made[0], made[2]]
    assert uppers.of(with_modules(request(1, "a"))) is made[3]
    for upper in made:
        upper.link.close()


def test_one_kind_does_not_push_out_the_other() -> None:
    """Nor do those for a terminal and for a pipe take each other's place."""
    uppers = Uppers()
    keys = [with_modules(request(1, name)) for name in "abc"]
    keys += [with_tests(request(1, "a"), shape) for shape in ((), (80, 24), (100, 24))]
    made = [Upper(socket.socket(socket.AF_UNIX), 0, LESSON) for _ in keys]
    assert [uppers.add(*pair) for pair in zip(keys, made, strict=True)] == [[]] * 6
    assert [uppers.of(key) for key in keys] == made
    for upper in made:
        upper.link.close()


def test_a_run_begins_only_when_it_has_been_announced() -> None:
    """What is not reported may not print; until then it can be taken back."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    upper = Upper(ours, 0, LESSON)
    reading, writing = os.pipe()
    said: list[str] = []
    assert upper.ask(request(1), [writing], "why")
    assert upper.ask(request(2), [writing], "")
    (_, first), (_, second) = receive(theirs), receive(theirs)
    os.set_blocking(first[1], False)
    assert upper.is_waited_for
    upper.announced(1, said.append)
    assert (os.read(first[1], 1), said, upper.running) == (b"g", ["why"], {1})
    [(taken, fds)] = upper.take_all()
    assert (taken["id"], os.read(second[1], 1)) == (2, b"")
    assert not upper.is_waited_for
    for fd in (*first, *second, *fds, reading, writing):
        os.close(fd)
    ours.close()
    theirs.close()
    assert not upper.ask(request(3), [0], "")
