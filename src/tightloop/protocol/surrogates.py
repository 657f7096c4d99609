"""Escapes of half a character (lone surrogates) in JSON text.

Writers whose strings are UTF-16 produce them when they cut text in the middle of an emoji; the
decoder used here calls them malformed. They are looked for only after it has refused a text.
"""

import re
from typing import Final

_ESCAPE: Final = re.compile(
    r"\\(?:u(?:d[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}|(?P<lone>d[89a-f][0-9a-f]{2})|[0-9a-f]{4})|.)",
    re.IGNORECASE | re.DOTALL,
)


def has_surrogate_escape(body: bytes | str) -> bool:
    """Whether an escape of half a character may be the reason why the text was refused."""
    if isinstance(body, bytes):
        return b"\\ud" in body or b"\\uD" in body
    return "\\ud" in body or "\\uD" in body


def replace_lone_surrogates(body: bytes | str) -> str:
    r"""The JSON text with every escape of half a character replaced by ``\ufffd``.

    Writers that cut text in the middle of an emoji produce them (``"\ud83d"``).
    """
    text = body if isinstance(body, str) else body.decode("utf-8", "replace")
    return _ESCAPE.sub(lambda m: "\\ufffd" if m["lone"] else m[0], text)
