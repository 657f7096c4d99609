"""How many columns text takes up on a terminal. ASCII needs no tables, so they are read late."""

from functools import lru_cache


@lru_cache(maxsize=4096)
def char_cells(char: str) -> int:
    """0, 1 or 2: marks that sit on another character, ordinary ones, East Asian and emoji."""
    from wcwidth import wcwidth

    return max(0, wcwidth(char))


def cells(text: str) -> int:
    """Columns of printable text without line breaks."""
    if text.isascii():
        return len(text)
    return sum([1 if char < "\u0300" else char_cells(char) for char in text])


def fitting(text: str, width: int, start: int = 0) -> int:
    """The largest ``end`` such that ``text[start:end]`` takes up at most ``width`` columns.

    A mark that sits on the last character that fits is still part of it.
    """
    if text.isascii():
        return min(len(text), start + max(0, width))
    used, end = 0, start
    for end in range(start, len(text)):
        used += char_cells(text[end])
        if used > width:
            return end
    return len(text)
