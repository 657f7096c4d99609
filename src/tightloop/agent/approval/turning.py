"""Words that turn a program into something else than what it is known as.

A rule such as ``git *`` is about git, not about whatever ``git -c core.pager=...`` runs. So a star of
a rule covers every word but these; a rule that spells them out allows them. Long options are met by
any beginning that GNU programs take for them.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tightloop.agent.approval.bash_words import Word
from tightloop.agent.approval.reading import is_in_place, reads_only, small_language_runs
from tightloop.agent.approval.wrappers import SHELLS, is_interpreter


@dataclass(frozen=True, slots=True)
class Turning:
    """``letters`` of short options, ``longs`` without their dashes, whole ``words``, and texts that
    a word may ``contain``."""

    letters: str = ""
    longs: tuple[str, ...] = ()
    words: frozenset[str] = frozenset()
    contains: tuple[str, ...] = ()

    def has(self, text: str) -> bool:
        """Whether this word is one of them."""
        if text in self.words or any(one in text for one in self.contains):
            return True
        if text.startswith("--"):
            name = text[2:].partition("=")[0]
            return bool(name) and any(one.startswith(name) for one in self.longs)
        if text.startswith("-"):
            name = text[1:].partition("=")[0]
            is_long = len(name) > 2 and any(one.startswith(name) for one in self.longs)
            return is_long or any(letter in text[1:] for letter in self.letters)
        return False


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_TABLE = {
    "git": Turning(
        "cxO",
        (
            "config-env", "exec-path", "exec", "upload-pack", "receive-pack", "ext-diff", "textconv",
            "output", "open-files-in-pager", "git-dir", "work-tree", "template", "config", "extcmd",
            "tool", "gpg-sign", "interactive",
        ),
        _words(
            "config difftool mergetool bisect filter-branch submodule for-each-repo hook daemon"
            " instaweb web--browse send-email credential maintenance -C -i"
        ),
        ("ext::", "%G"),
    ),
    "rg": Turning("z", ("pre", "hostname-bin", "search-zip")),
    "fd": Turning("xXl", ("exec", "exec-batch", "list-details")),
    "tar": Turning(
        "IF",
        (
            "to-command", "checkpoint-action", "use-compress-program", "rsh-command", "rmt-command",
            "info-script", "new-volume-script",
        ),
    ),
    "sort": Turning("To", ("output", "compress-program", "temporary-directory", "files0-from")),
    "split": Turning("", ("filter",)),
    "ssh": Turning("oFSJ", (), frozenset(), ("ProxyCommand", "LocalCommand")),
    "scp": Turning("oFSD"),
    "sftp": Turning("oFSD"),
    "rsync": Turning("eM", ("rsh", "rsync-path", "remote-option")),
    "make": Turning("fCIEo", ("file", "makefile", "eval", "directory"), frozenset(), ("=",)),
    "npm": Turning("c", ("script-shell", "call", "prefix"), _words("exec x explore config")),
    "man": Turning("PHC", ("pager", "html", "config-file")),
    "zip": Turning("T", ("unzip-command",)),
    "curl": Turning("KoOT", ("config", "output", "remote-name", "upload-file")),
    "wget": Turning("Oei", ("use-askpass", "output-document", "execute", "input-file")),
    "vim": Turning("csSW", ("cmd",), frozenset(), ("+",)),
    "vi": Turning("csSW", ("cmd",), frozenset(), ("+",)),
    "less": Turning("oOk", ("log-file", "lesskey-file"), frozenset(), ("+",)),
    "more": Turning("", (), frozenset(), ("+",)),
    "tree": Turning("oR"),
    "jq": Turning("fL", ("from-file",)),
    "date": Turning("s", ("set",)),
    "find": Turning(
        "", (), _words("-delete -fprint -fprint0 -fprintf -fls -files0-from -exec -execdir -ok -okdir")
    ),
}  # fmt: skip
RUNNERS = _words(
    "sudo doas su runuser flock watch script parallel entr ssh chroot unshare nsenter strace ltrace"
    " taskset chrt systemd-run npx bunx uvx pipx"
)
"""Programs that run whatever stands behind them."""
RUNNING = {
    "uv": _words("run tool"),
    "poetry": _words("run"),
    "pipenv": _words("run"),
    "pdm": _words("run"),
    "rye": _words("run"),
    "hatch": _words("run"),
    "conda": _words("run"),
    "docker": _words("run exec compose"),
    "podman": _words("run exec"),
    "kubectl": _words("exec run"),
    "npm": _words("exec x"),
    "pnpm": _words("exec dlx"),
    "yarn": _words("exec dlx"),
    "direnv": _words("exec"),
    "nix": _words("run shell develop"),
}
"""Programs with a subcommand that does."""
_SMALL_LANGUAGES = frozenset({"awk", "gawk", "mawk", "nawk", "printf", "test", "[", "uniq"})


def star_covers(words: Sequence[Word], index: int) -> bool:
    """Whether a star of a rule may stand for this word of the program's."""
    name = (words[0].text or "").rpartition("/")[2]
    word = words[index]
    if name == "sed":
        return not is_in_place(word.text) and not small_language_runs(words)
    if name in _SMALL_LANGUAGES:
        return reads_only((Word(name, name), *words[1:]))
    if is_interpreter(name):
        return word.text is not None and not _is_before_file(words, index)
    if (name in RUNNERS or name in SHELLS) and index == 1:
        return False
    if name in RUNNING and (word.text is None or word.text in RUNNING[name]):
        return False
    table = _TABLE.get(name)
    if table is None:
        return True
    if word.text is not None:
        return not table.has(word.text)
    has_subject = all(one.text is not None for one in words[1:2])
    return has_subject and not word.can_be_option and not table.has(word.start)


_SHELL_SIGNS = re.compile(r"[!;&|$`\\'\"\s]")


def hands_over(words: Sequence[Word]) -> bool:
    """Whether the program is handed something to run that may be more than a name."""
    if any(word.start == "/dev/fd/" for word in words[1:]):
        return True
    table = _TABLE.get((words[0].text or "").rpartition("/")[2])
    texts = [word.text or "" for word in words[1:]]
    return (
        table is not None
        and any(map(table.has, texts))
        and any(text == "-" or text.endswith("=-") or _SHELL_SIGNS.search(text) for text in texts)
    )


def _is_before_file(words: Sequence[Word], index: int) -> bool:
    """Whether the word is an option that stands before an interpreter's file, or the module."""
    before = [word.text or "" for word in words[1 : index + 1]]
    return all(text.startswith("-") for text in before)
