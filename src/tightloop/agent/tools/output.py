"""What the model gets to see of a long output: its start and its end, cut at line ends."""

MAX_CHARS = 16_000
HEAD_SHARE = 0.4


def shorten_output(text: str, max_chars: int = MAX_CHARS) -> str:
    """``text``, or its first 40 % and last 60 % of ``max_chars`` with a note between.

    Depends on the text alone, so equal outputs give equal prompts. Tests and compilers say what
    matters at the end, hence the larger tail.
    """
    if len(text) <= max_chars:
        return text
    num_head = int(max_chars * HEAD_SHARE)
    head = text[:num_head]
    tail = text[len(text) - (max_chars - num_head) :]
    if "\n" in head:
        head = head[: head.rindex("\n") + 1]
    if "\n" in tail[:-1]:
        tail = tail[tail.index("\n") + 1 :]
    left_out = text[len(head) : len(text) - len(tail)]
    num_bytes = len(left_out.encode("utf-8", "surrogatepass"))
    note = f"[... {num_bytes} bytes in {left_out.count(chr(10))} lines left out ...]\n"
    return head + ("" if head.endswith("\n") else "\n") + note + tail
