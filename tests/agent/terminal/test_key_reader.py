import asyncio
import os
import tty
from pty import openpty

from tightloop.agent.terminal.key_reader import KeyReader
from tightloop.agent.terminal.keys import Key


async def test_a_key_that_comes_in_pieces_is_one() -> None:
    """Also when the loop was too busy to see the second piece in time."""
    master, slave = openpty()
    tty.setraw(slave)
    keys: asyncio.Queue[Key] = asyncio.Queue()
    reader = KeyReader(asyncio.get_running_loop(), slave, keys.put_nowait, is_raw=True)
    os.write(master, b"\x1b")
    os.write(master, b"[A")
    assert Key("up") == await keys.get()
    os.write(master, b"\x1b")
    assert Key("esc") == await keys.get()
    os.write(master, b"x")
    assert Key("text", "x") == await keys.get()
    reader.stop()
    reader.stop()
    os.close(master)
    os.close(slave)


async def test_nothing_is_reported_after_stop() -> None:
    """Not even keys that came in the same read."""
    read, write = os.pipe()
    found: list[Key] = []

    def on_key(key: Key) -> None:
        found.append(key)
        reader.stop()
        over.set()

    over = asyncio.Event()
    reader = KeyReader(asyncio.get_running_loop(), read, on_key, is_raw=True)
    os.write(write, b"\r\r\r")
    await over.wait()
    assert [Key("enter")] == found
    os.close(read)
    os.close(write)


async def test_lines_and_the_end_of_a_pipe() -> None:
    """A last line without its newline counts."""
    read, write = os.pipe()
    keys: asyncio.Queue[Key] = asyncio.Queue()
    KeyReader(asyncio.get_running_loop(), read, keys.put_nowait, is_raw=False)
    os.write(write, b"one")
    os.close(write)
    expected = [Key("text", "one"), Key("enter"), Key("ctrl-d")]
    assert expected == [await keys.get() for _ in expected]
    os.close(read)


async def test_input_that_no_loop_can_wait_for() -> None:
    """``/dev/null`` is at its end at once."""
    keys: asyncio.Queue[Key] = asyncio.Queue()
    fd = os.open("/dev/null", os.O_RDONLY)
    KeyReader(asyncio.get_running_loop(), fd, keys.put_nowait, is_raw=False)
    assert Key("ctrl-d") == await keys.get()
    os.close(fd)
