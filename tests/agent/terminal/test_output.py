import asyncio
import os
import pty

from tightloop.agent.terminal.output import FdOutput


async def test_what_is_not_taken_at_once_is_written_later() -> None:
    """A terminal that reads slowly never holds up the loop; nothing is lost or reordered."""
    master, slave = pty.openpty()
    output = FdOutput(slave)
    output.attach(asyncio.get_running_loop())
    idle = asyncio.Event()
    output.on_idle = idle.set
    data = b"".join(b"%07d " % number for number in range(50_000))
    output.write(data[:8])
    output.write(data[8:])
    assert not output.is_idle
    found = bytearray()
    all_read = asyncio.Event()

    def read() -> None:
        found.extend(os.read(master, 65_536))
        if len(found) == len(data):
            all_read.set()

    asyncio.get_running_loop().add_reader(master, read)
    await all_read.wait()
    await idle.wait()
    asyncio.get_running_loop().remove_reader(master)
    assert data == found
    assert output.is_idle
    output.close()
    assert os.get_blocking(slave)
    os.close(slave)
    os.close(master)


def test_without_a_loop_writing_waits() -> None:
    """A first paint is out when ``write`` returns."""
    read, write = os.pipe()
    output = FdOutput(write)
    output.write(b"first paint")
    assert output.is_idle
    output.close()
    os.close(write)
    assert os.read(read, 100) == b"first paint"
    os.close(read)


def test_a_reader_that_is_gone_is_no_error() -> None:
    """What it does not take is dropped, now and later."""
    read, write = os.pipe()
    os.close(read)
    output = FdOutput(write)
    output.write(b"one")
    output.write(b"two")
    output.drain()
    assert output.is_idle
    output.close()
    os.close(write)
