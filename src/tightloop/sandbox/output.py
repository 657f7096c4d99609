"""What is kept of a command's output: head and tail, in bounded memory."""

import codecs


class HeadAndTail:
    """Collects bytes; keeps all of them up to the limit, else the first and the last half.

    The result depends on the bytes only, not on the pieces they came in. Memory: at most one and
    a half times the limit between two pieces, and one more piece while it is taken.
    """

    def __init__(self, max_bytes: int) -> None:
        if max_bytes < 2:
            raise ValueError(f"max_bytes must be at least 2, got {max_bytes}")
        self._num_head = max_bytes // 2
        self._num_tail = max_bytes - self._num_head
        self._head = bytearray()
        self._tail = bytearray()
        self._num_line_ends = 0
        self.num_bytes = 0

    def add(self, data: bytes) -> None:
        """Take the next piece."""
        self.num_bytes += len(data)
        self._num_line_ends += data.count(b"\n")
        room = self._num_head - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        if len(data) >= self._num_tail:
            self._tail[:] = data[-self._num_tail :]
            return
        self._tail += data
        # Trimmed only when twice too long: moving the bytes stays cheap per byte.
        if len(self._tail) > 2 * self._num_tail:
            del self._tail[: -self._num_tail]

    @property
    def is_truncated(self) -> bool:
        """Whether something was left out."""
        return self.num_bytes > self._num_head + self._num_tail

    def text(self) -> str:
        """The output, decoded as UTF-8 with replacement, with a line where bytes are missing.

        That line says how many bytes, and how many line ends were among them.
        """
        if not self.is_truncated:
            return (self._head + self._tail).decode(errors="replace")
        last = self._tail[-self._num_tail :]
        num_bytes = self.num_bytes - self._num_head - self._num_tail
        num_lines = self._num_line_ends - self._head.count(b"\n") - last.count(b"\n")
        # As whoever heard it while it came: only a character that was cut off is left out.
        head = codecs.getincrementaldecoder("utf-8")("replace").decode(bytes(self._head))
        tail = last[_num_continuing(last) :].decode(errors="replace")
        return f"{head}\n[... {num_bytes} bytes in {num_lines} lines left out ...]\n{tail}"


def _num_continuing(data: bytearray) -> int:
    """How many bytes at the start continue a UTF-8 character that was cut off; three at most."""
    number = 0
    while number < min(3, len(data)) and data[number] & 0xC0 == 0x80:
        number += 1
    return number
