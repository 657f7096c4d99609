"""``exec resume ID PROMPT`` and ``exec resume --last PROMPT``, as Codex spells ``exec --resume``."""

from collections.abc import Sequence


def respelt(words: Sequence[str]) -> list[str]:
    """The words after ``exec``, with our own options; those that do not begin with ``resume`` as
    they are. So a prompt of this one word has to come by standard input."""
    if not words or words[0] != "resume":
        return list(words)
    rest = list(words[1:])
    if "--last" in rest:
        rest.remove("--last")
        return ["--resume", "last", *rest]
    if rest and not rest[0].startswith("-"):
        return ["--resume", *rest]
    return ["--resume", "", *rest]
