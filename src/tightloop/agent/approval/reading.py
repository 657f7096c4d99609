"""Which programs, given which words, provably read only.

One line per program. Options are listed, never excluded: GNU programs take any unambiguous
beginning of a long option, and new versions bring new ones. What a word becomes when it is not
known counts as an option unless it cannot begin with a dash. Programs that only ever read take
anything. Sources: the manuals of coreutils, findutils, grep, ripgrep, fd, git, sed, gawk and jq.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tightloop.agent.approval.bash_words import Word


@dataclass(frozen=True, slots=True)
class Reads:
    """``flags`` and ``valued`` are letters of short options, the latter with a value that may be
    attached; ``longs`` are whole names. ``max_operands`` bounds what is no option."""

    flags: str = ""
    valued: str = ""
    longs: frozenset[str] = frozenset()
    max_operands: int | None = None

    def accepts(self, words: Sequence[Word]) -> bool:
        """Whether these words, without the program's name, keep it reading."""
        num_operands, are_operands = 0, False
        for word in words:
            if are_operands or not word.can_be_option or word.text == "-":
                num_operands += 1
                if not word.is_single and self.max_operands is not None:
                    return False
            elif word.text == "--":
                are_operands = True
            elif word.text is None or not self._accepts_option(word.text):
                return False
        return self.max_operands is None or num_operands <= self.max_operands

    def _accepts_option(self, text: str) -> bool:
        if text.startswith("--"):
            return text.partition("=")[0] in self.longs
        for letter in text[1:]:
            if letter in self.valued:
                return True
            if letter not in self.flags and not letter.isdigit():
                return False
        return True


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _longs(names: str) -> frozenset[str]:
    return frozenset(f"--{name}" for name in names.split())


_ALWAYS = _names(
    """
    cat wc head tail ls nl cut tr rev tac fold paste join expand unexpand fmt cksum sum
    md5sum sha1sum sha224sum sha256sum sha384sum sha512sum b2sum stat du df basename dirname
    realpath readlink seq echo true false : pwd nproc whoami id groups uname arch tty sleep
    comm cmp grep egrep fgrep od hexdump which type base64 tsort factor expr numfmt getconf
    logname users uptime free
    wait jobs break continue exit return
    """
)
"""No option makes any of them write, run something or change the shell."""

_TABLE = {
    "cd": Reads(max_operands=1),
    "date": Reads("uIR", "d", _longs("utc date iso-8601 rfc-3339"), 1),
    "diff": Reads(
        "abBcdeEHiNnpqrstTuwy",
        "CUWxXILDFS",
        _longs("brief unified recursive context side-by-side ignore-all-space ignore-case color"),
    ),
    "fd": Reads(
        "HIuLsigapF",
        "etdEc",
        _longs("type extension hidden no-ignore glob max-depth min-depth exclude full-path"),
    ),
    "file": Reads("bhikLNnprsv", "", _longs("brief mime mime-type mime-encoding dereference")),
    "jq": Reads(
        "cCejMnrRsS",
        "",
        _longs("raw-output compact-output slurp null-input exit-status tab sort-keys arg argjson"),
    ),
    "rg": Reads(
        "abcFhHiIlLnNoPpqsSuUvVwx",
        "ABCdEeefgjmMrtT",
        _longs(
            "files hidden no-ignore glob iglob type type-not type-list count files-with-matches"
            " files-without-match line-number no-line-number ignore-case smart-case case-sensitive"
            " fixed-strings multiline word-regexp max-count max-depth context after-context"
            " before-context only-matching json no-heading heading color sort sortr stats vimgrep"
            " invert-match pcre2 follow max-columns replace trim with-filename no-filename regexp"
            " version no-messages null multiline-dotall line-regexp count-matches"
        ),
    ),
    "sort": Reads(
        "bdfghiMnrRsuVzcC",
        "kt",
        _longs(
            "reverse numeric-sort unique human-numeric-sort version-sort field-separator key"
            " ignore-case stable zero-terminated check"
        ),
    ),
    "tree": Reads("adfpsughDFqNrtvUAxJi", "LPI", _longs("dirsfirst noreport gitignore prune")),
    "uniq": Reads("cdDiuz", "fsw", _longs("count repeated unique ignore-case"), 1),
}

_FIND_TESTS = _names(
    """
    -name -iname -path -ipath -wholename -regex -iregex -type -xtype -size -mtime -mmin
    -atime -amin -ctime -cmin -newer -maxdepth -mindepth -print -print0 -printf -prune -not
    -and -or -o -a -empty -perm -user -group -depth -d -xdev -mount -follow -L -H -P -ls
    -quit -readable -writable -executable -links -inum -samefile -true -false -daystart
    -regextype -noleaf
    """
)

_SED_ADDRESS = r"(?:\d+|\$|/(?:[^/\\\n]|\\[^\n])*/)"
_SED_BODY = r"(?:[^\\\n{0}]|\\[^\n])*"
_SED_SUBSTITUTE = "|".join(
    rf"s{mark}{_SED_BODY.format(mark)}{mark}{_SED_BODY.format(mark)}{mark}[gpiI0-9]*"
    for mark in ("/", r"\|", "#", ",", "@", "!", ":", "%")
)
_SED_COMMAND = rf"\s*(?:{_SED_ADDRESS}(?:,\+?{_SED_ADDRESS})?\s*!?)?\s*(?:[pdq=]|{_SED_SUBSTITUTE})"
_SED_SCRIPT = re.compile(rf"{_SED_COMMAND}(?:\s*;{_SED_COMMAND})*\s*;?\s*")
"""Print, delete, number, quit and substitute; no command that writes, reads or runs anything."""
_AWK_REFUSED = re.compile(r"system|getline|close|[|>@]")
"""Without these awk has no way to run or to write anything but its output."""
_AWK_RUNS = re.compile(r"system|[|@]")
_AWKS = frozenset({"awk", "gawk", "mawk", "nawk", "original-awk"})

_GIT_LOG = Reads(
    "pswbzuiaERcmtq",
    "nSGLMCU",
    _longs(
        "stat shortstat numstat name-only name-status cached staged oneline graph decorate all patch"
        " no-patch unified color no-color word-diff ignore-all-space ignore-space-change"
        " ignore-blank-lines find-renames diff-filter follow since until after before author"
        " committer grep max-count skip format pretty abbrev-commit abbrev no-merges merges"
        " first-parent reverse date relative summary no-ext-diff no-textconv check full-index binary"
        " merge-base branches tags remotes topo-order date-order left-right minimal patience"
        " histogram no-renames quiet exit-code raw full-history simplify-by-decoration no-decorate"
    ),
)
_GIT_LIST = Reads("avrl", "", _longs("list all remotes verbose show-current"), 0)
_GIT = {
    "status": Reads(
        "sbuvz",
        "",
        _longs("short branch porcelain long untracked-files ignored show-stash verbose no-renames"),
    ),
    "diff": _GIT_LOG,
    "log": _GIT_LOG,
    "show": _GIT_LOG,
    "shortlog": Reads("sne", "", _longs("summary numbered email all no-merges since until")),
    "blame": Reads("slwefnptb", "LMCS", _longs("show-email porcelain root date line-porcelain")),
    "grep": Reads(
        "nilIwEFPGhHcvLoq",
        "ABCem",
        _longs("line-number ignore-case word-regexp count files-with-matches untracked cached"),
    ),
    "ls-files": Reads(
        "cdmoiskutvz",
        "xX",
        _longs("cached deleted modified others ignored stage exclude-standard full-name"),
    ),
    "ls-tree": Reads("drtlz", "", _longs("name-only name-status long full-name full-tree")),
    "rev-parse": Reads(
        "q",
        "",
        _longs(
            "verify short abbrev-ref show-toplevel is-inside-work-tree git-dir absolute-git-dir"
        ),
    ),
    "rev-list": Reads("", "n", _longs("count all max-count since until no-merges first-parent")),
    "cat-file": Reads("tpse"),
    "describe": Reads("", "", _longs("tags all always long abbrev match")),
    "merge-base": Reads("a", "", _longs("all is-ancestor fork-point octopus")),
    "branch": _GIT_LIST,
    "tag": _GIT_LIST,
    "remote": Reads("v", "", _longs("verbose"), 0),
    "check-ignore": Reads("vqn", "", _longs("verbose quiet non-matching no-index")),
    "version": Reads(max_operands=0),
}
_GIT_GLOBAL = frozenset({"--no-pager", "-P", "--no-optional-locks", "--literal-pathspecs"})
_GIT_RUNS_GPG = re.compile(r"%G|signature")


def reads_only(words: Sequence[Word]) -> bool:
    """Whether this program with these words changes nothing and runs nothing else.

    The name is taken as what it usually means: whoever asks must know that it does here.
    """
    name = words[0].text
    if name is None:
        return False
    if name in _ALWAYS:
        return True
    if special := _SPECIAL.get(name):
        return special(words[1:])
    table = _TABLE.get(name)
    return table is not None and table.accepts(words[1:]) and _is_harmless_date(words)


def words_are_data(words: Sequence[Word]) -> bool:
    """Whether the words of this program are its own data, and never a command that it runs."""
    name = words[0].text or ""
    return name in _OWN_DATA or name in _ALWAYS or reads_only(words)


_OWN_DATA = _names(
    """
    mkdir rmdir touch rm mv cp ln chmod chown tee truncate kill pkill patch gzip gunzip
    """
)


def _is_harmless_date(words: Sequence[Word]) -> bool:
    """An operand of ``date`` sets the clock unless it is a format."""
    if words[0].text != "date":
        return True
    return all(word.start.startswith(("+", "-")) for word in words[1:] if not word.can_be_option)


def _find(words: Sequence[Word]) -> bool:
    for word in words:
        if word.text is None and word.can_be_option:
            return False
        if word.text is not None and word.text.startswith("-") and word.text not in _FIND_TESTS:
            is_number = word.text[1:].removesuffix("k").removesuffix("M").isdigit()
            if not is_number:
                return False
    return True


_SED_FLAGS = frozenset("nErsuz")
_SED_LONGS = _longs("quiet silent regexp-extended separate unbuffered null-data")


def _sed(words: Sequence[Word]) -> bool:
    scripts: list[str | None] = []
    operands: list[Word] = []
    left = list(words)
    while left:
        word = left.pop(0)
        if word.text == "-e":
            scripts.append(left.pop(0).text if left else None)
        elif not word.can_be_option:
            operands.append(word)
        elif word.text is None or not (
            word.text in _SED_LONGS or (len(word.text) > 1 and set(word.text[1:]) <= _SED_FLAGS)
        ):
            return False
    if not scripts and operands:
        scripts.append(operands.pop(0).text)
    return bool(scripts) and all(
        script is not None and _SED_SCRIPT.fullmatch(script) is not None for script in scripts
    )


def _awk(words: Sequence[Word]) -> bool:
    left = list(words)
    while left and left[0].can_be_option:
        text = left.pop(0).text
        if text is None or not text.startswith(("-F", "-v")):
            return False
        if len(text) == 2:
            if not left or left[0].text is None:
                return False
            left.pop(0)
    if not left or left[0].text is None or _AWK_REFUSED.search(left[0].text):
        return False
    return not any(word.can_be_option for word in left[1:])


def small_language_runs(words: Sequence[Word]) -> bool:
    """Whether a program in awk's or sed's language may run commands, as far as can be told."""
    name = (words[0].text or "").rpartition("/")[2]
    if name == "sed":
        kept = [word for word in words[1:] if not is_in_place(word.text)]
        return not _sed(kept)
    if name not in _AWKS or _awk(words[1:]):
        return False
    texts = [word.text for word in words[1:]]
    return any(
        text is None
        or text.startswith(("-f", "-i", "-l", "-E", "--"))
        or _AWK_RUNS.search(text.replace("||", "")) is not None
        for text in texts
    )


def is_in_place(text: str | None) -> bool:
    """Whether this option of ``sed`` makes it write to the files that it reads."""
    return text is not None and re.fullmatch(r"-i(\.\w+)?|--in-place(=\S*)?", text) is not None


_PRINTF_ASSIGNS = re.compile(r"%[^%a-zA-Z]*[hljztL]*n")
_TEST_RUNS = frozenset({"-v", "-R"})
"""They look at the index of an array, in which bash runs substitutions."""


def _printf(words: Sequence[Word]) -> bool:
    if not words or words[0].text is None or words[0].text.startswith("-"):
        return False
    return _PRINTF_ASSIGNS.search(words[0].text) is None


def _test(words: Sequence[Word]) -> bool:
    return all(word.text is not None and word.text not in _TEST_RUNS for word in words)


def _command(words: Sequence[Word]) -> bool:
    return bool(words) and words[0].text in ("-v", "-V")


def _git(words: Sequence[Word]) -> bool:
    left = list(words)
    while left and left[0].text in _GIT_GLOBAL:
        left.pop(0)
    if not left or any(_GIT_RUNS_GPG.search(word.start) for word in left):
        return False
    if [word.text for word in left] == ["stash", "list"]:
        return True
    table = _GIT.get(left[0].text or "")
    return table is not None and table.accepts(left[1:])


_SPECIAL: dict[str, Callable[[Sequence[Word]], bool]] = {
    "find": _find,
    "sed": _sed,
    "awk": _awk,
    "gawk": _awk,
    "mawk": _awk,
    "printf": _printf,
    "test": _test,
    "[": _test,
    "command": _command,
    "git": _git,
}


def leaves_directory(words: Sequence[Word]) -> bool:
    """Whether a word names something outside of the directory that the command starts in, or may."""
    for word in words[1:]:
        if word.text is None and (word.can_be_option or word.start.startswith(("/", "."))):
            return True
        value = word.start.partition("=")[2] if word.start.startswith("-") else word.start
        if value.startswith(("/", "~")) or ".." in value.split("/") or word.raw.startswith("~"):
            return True
    return False
