"""What is kept of a command's output: head and tail, in bounded memory."""

import codecs


class HeadAndTail:
    """Collects bytes; keeps all of them up to the limit, else the first and the last half.

    The result depends on the bytes only, not on the pieces they came in.
    """

    def __init__(self, max_bytes: int) -> None:
        if max_bytes < 2:
            raise ValueError(f"max_bytes must be at least 2, got {max_bytes}")
        self._num_head = max_bytes // 2
        self._num_tail = max_bytes - self._num_head
        self._head = bytearray()
        self._tail = bytearray()
        self.num_bytes = 0

    def add(self, data: bytes) -> None:
        """Take the next piece."""
        self.num_bytes += len(data)
        room = self._num_head - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        self._tail += data
        # Trimmed only when twice too long: moving the bytes stays cheap per byte.
        if len(self._tail) > 2 * self._num_tail:
            del self._tail[: -self._num_tail]

    @property
    def is_truncated(self) -> bool:
        """Whether something was left out."""
        return self.num_bytes > self._num_head + self._num_tail

    def text(self) -> str:
        """The output, decoded as UTF-8 with replacement, with a line where bytes are missing."""
        if not self.is_truncated:
            return (self._head + self._tail).decode(errors="replace")
        num_left_out = self.num_bytes - self._num_head - self._num_tail
        # As whoever heard it while it came: only a character that was cut off is left out.
        head = codecs.getincrementaldecoder("utf-8")("replace").decode(bytes(self._head))
        tail = self._tail[-self._num_tail :].decode(errors="ignore")
        return f"{head}\n[... {num_left_out} bytes left out ...]\n{tail}"
