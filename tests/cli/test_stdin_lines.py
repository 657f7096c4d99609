"""Lines as they come, in any pieces; the end is told once."""

import asyncio
import os
from pathlib import Path

import pytest

from tightloop.cli.stdin_lines import LineReader
from tightloop.harness.inputs import MAX_LINE_BYTES


async def lines_of(fd: int) -> list[bytes]:
    ended = asyncio.Event()
    lines: list[bytes] = []
    LineReader(lines.append, ended.set, fd).start()
    await ended.wait()
    return lines


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"a\nb\n", [b"a", b"b"]),
        (b"a\n\nb", [b"a", b"", b"b"]),
        (b"x" * 200_000 + b"\ny\n", [b"x" * 200_000, b"y"]),
    ],
)
async def test_a_file_is_read_as_a_pipe_would_be(
    tmp_path: Path, data: bytes, lines: list[bytes]
) -> None:
    (tmp_path / "in").write_bytes(data)
    fd = os.open(tmp_path / "in", os.O_RDONLY)
    assert await lines_of(fd) == lines
    os.close(fd)


async def test_a_line_that_is_too_long_is_one_bad_line(tmp_path: Path) -> None:
    """It is handed on in part, once; what comes behind it is read."""
    (tmp_path / "in").write_bytes(b"x" * (2 * MAX_LINE_BYTES + 70_000) + b"\nnext\n")
    fd = os.open(tmp_path / "in", os.O_RDONLY)
    lines = await lines_of(fd)
    os.close(fd)
    assert [len(line) > MAX_LINE_BYTES for line in lines] == [True, False]
    assert lines[1] == b"next"


async def test_lines_come_while_the_pipe_is_open() -> None:
    read_fd, write_fd = os.pipe()
    lines: asyncio.Queue[bytes] = asyncio.Queue()
    ended = asyncio.Event()
    LineReader(lines.put_nowait, ended.set, read_fd).start()
    os.write(write_fd, b"one\ntw")
    assert await lines.get() == b"one"
    os.write(write_fd, b"o\n")
    assert await lines.get() == b"two"
    os.close(write_fd)
    await ended.wait()
    os.close(read_fd)


async def test_no_input_at_all_is_its_end() -> None:
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    os.close(write_fd)
    assert await lines_of(read_fd) == []
