"""A bash command line taken apart into the simple commands that it may run.

::

    cd src && FOO=1 pytest -q 2>&1 | tail    ->   cd src    FOO=1 pytest -q    tail

Lists, pipelines, groups, subshells, ``if``, ``while``, ``until``, ``for``, substitutions and
here-documents are understood; everything else raises ``NotUnderstood``: arithmetic, ``case``,
``[[``, functions, arrays, parameter expansions other than plain ones. Which of the commands run,
and how often, is not asked.
"""

import re
from dataclasses import dataclass, field

from tightloop.agent.approval.bash_words import (
    BLANKS,
    META,
    UNKNOWN,
    NotUnderstood,
    Word,
    WordReader,
    check_characters,
    known,
)

MAX_CHARS = 16_384
"""Longer lines are not looked into: nobody can read what would be asked."""
MAX_DEPTH = 12
"""Substitutions, groups and loops within each other."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(\+?)=")
_SUBSCRIPT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\[")
_REDIRECT = re.compile(r"(\d*)(<<<|<<-|<<|<>|<&|<(?!\()|>>|>&|>\||>(?!\())|(&>>|&>)")
_RESERVED = re.compile(rf"(?:[a-z]+|\[\[|[{{}}!])(?=[{re.escape(META)}]|$)")
_ENDINGS = frozenset({"then", "elif", "else", "fi", "do", "done", "esac", "}", "in"})
_REFUSED = frozenset({"case", "select", "function", "coproc", "[["})
_OPENINGS = frozenset({"if", "for", "while", "until", "{"})
_WORDS = _ENDINGS | _REFUSED | _OPENINGS | {"time", "!"}
_JOINTS = ("&&", "||", "|&", "|")


@dataclass(frozen=True, slots=True)
class Assignment:
    """``NAME=VALUE``, before a command or by itself; also what a loop gives its variable."""

    name: str
    value: Word


@dataclass(slots=True)
class Redirect:
    """``2> target``. ``body`` is what a here-document or here-string feeds in."""

    operator: str
    descriptor: str
    target: Word
    body: Word | None = None


@dataclass(frozen=True, slots=True)
class SimpleCommand:
    """What one program or builtin gets. Without ``words`` it only assigns or redirects."""

    words: tuple[Word, ...] = ()
    assignments: tuple[Assignment, ...] = ()
    redirects: tuple[Redirect, ...] = ()


@dataclass(frozen=True, slots=True)
class _Awaited:
    """A here-document whose body has not come yet; ``at`` is where its end mark was read."""

    redirect: Redirect
    at: int


def parse_line(text: str, depth: int = 0) -> list[SimpleCommand]:
    """Every simple command that may run when bash runs ``text``. Raises ``NotUnderstood``."""
    if len(text) > MAX_CHARS:
        raise NotUnderstood(f"a line of more than {MAX_CHARS} characters")
    check_characters(text)
    parser = _Parser(text, depth)
    parser.whole()
    return parser.commands


@dataclass(slots=True)
class _Parser:
    text: str
    depth: int
    commands: list[SimpleCommand] = field(default_factory=list)
    _num_open: int = 0
    _awaited: _Awaited | None = None
    _read: WordReader = field(init=False)

    def __post_init__(self) -> None:
        self._read = WordReader(self.text, self._enclosed, self._apart)

    def whole(self) -> None:
        """All of the text."""
        self._list()
        if self._read.peek():
            raise self._unexpected()
        if self._awaited is not None:
            raise NotUnderstood("a here-document without its end")

    # -- lists and pipelines

    def _list(self) -> None:
        """Commands up to a closing parenthesis, a word that ends a compound, or the end."""
        while True:
            self._skip_lines()
            if self._read.peek() in ("", ")") or self._reserved() in _ENDINGS:
                return
            self._pipelines()
            self._skip_blanks()
            char = self._read.peek()
            if char == ";" and self._read.peek(2) in (";;", ";&"):
                raise self._unexpected()
            if char in (";", "&"):
                self._read.at += 1
            elif char not in ("", "\n", ")"):
                raise self._unexpected()

    def _pipelines(self) -> None:
        """Pipelines joined by ``&&`` and ``||``, and by bars, which make no difference here."""
        while True:
            self._skip_blanks()
            self._prefixes()
            self._command()
            self._skip_blanks()
            joint = next((one for one in _JOINTS if self._read.peek(2).startswith(one)), "")
            if not joint:
                return
            self._read.at += len(joint)
            self._skip_lines()

    def _prefixes(self) -> None:
        """``!`` and ``time`` before a pipeline."""
        while (word := self._reserved()) in ("!", "time"):
            self._read.at += len(word)
            self._skip_blanks()
            if word == "time" and self._read.peek() == "-":
                raise NotUnderstood("options of 'time'")

    # -- commands

    def _command(self) -> None:
        if self._read.peek() == "(":
            if self._read.peek(2) == "((":
                raise NotUnderstood("'(('")
            self._read.at += 1
            self._enclosed()
            self._trailing_redirects()
            return
        word = self._reserved()
        if word in _REFUSED or word in _ENDINGS:
            raise NotUnderstood(repr(word))
        if word not in _OPENINGS:
            self._simple()
            return
        self._read.at += len(word)
        self._go_deeper()
        if word == "{":
            self._until("}")
        elif word == "for":
            self._for()
        elif word == "if":
            self._if()
        else:  # while, until
            self._until("do")
            self._until("done")
        self.depth -= 1
        self._trailing_redirects()

    def _until(self, *endings: str) -> str:
        """A list of at least one command, and the word that ends it."""
        num_before = len(self.commands)
        self._list()
        word = self._reserved()
        if word not in endings or len(self.commands) == num_before:
            raise NotUnderstood(f"a compound command without {' or '.join(endings)}")
        self._read.at += len(word)
        return word

    def _if(self) -> None:
        self._until("then")
        while (ending := self._until("elif", "else", "fi")) != "fi":
            if ending == "else":
                self._until("fi")
                return
            self._until("then")

    def _for(self) -> None:
        self._skip_blanks()
        match = _NAME.match(self.text, self._read.at)
        if match is None:
            raise NotUnderstood("'for' without a name")
        self._read.at = match.end()
        self._skip_blanks()
        if self._reserved() == "in":
            self._read.at += 2
            self._skip_blanks()
            while self._read.peek() not in ("", ";", "\n"):
                self._read.word()
                self._skip_blanks()
        self.commands.append(SimpleCommand(assignments=(Assignment(match[0], UNKNOWN),)))
        if self._read.peek() == ";":
            self._read.at += 1
        self._skip_lines()
        if self._reserved() != "do":
            raise NotUnderstood("a loop without 'do'")
        self._read.at += 2
        self._until("done")

    def _simple(self) -> None:
        words: list[Word] = []
        assignments: list[Assignment] = []
        redirects: list[Redirect] = []
        while True:
            self._skip_blanks()
            if self._redirect(redirects):
                continue
            char = self._read.peek()
            if char == "" or (char in META and self._read.peek(2) not in ("<(", ">(")):
                break
            assignment = None if words else self._assignment()
            if assignment is None:
                words.append(self._read.word())
            else:
                assignments.append(assignment)
        if char == "(":
            raise NotUnderstood("a function or an array")
        if not (words or assignments or redirects):
            raise self._unexpected()
        self.commands.append(SimpleCommand(tuple(words), tuple(assignments), tuple(redirects)))

    def _assignment(self) -> Assignment | None:
        if _SUBSCRIPT.match(self.text, self._read.at):
            raise NotUnderstood("an element of an array, or a pattern as a command")
        match = _ASSIGNMENT.match(self.text, self._read.at)
        if match is None:
            return None
        self._read.at = match.end()
        char = self._read.peek()
        if char == "(":
            raise NotUnderstood("an array")
        if char == "" or (char in META and self._read.peek(2) not in ("<(", ">(")):
            return Assignment(match[1], known(""))
        value = self._read.word()
        return Assignment(match[1], UNKNOWN if match[2] else value)

    # -- redirections

    def _trailing_redirects(self) -> None:
        """Those behind a compound command."""
        redirects: list[Redirect] = []
        self._skip_blanks()
        while self._redirect(redirects):
            self._skip_blanks()
        if redirects:
            self.commands.append(SimpleCommand(redirects=tuple(redirects)))

    def _redirect(self, redirects: list[Redirect]) -> bool:
        match = _REDIRECT.match(self.text, self._read.at)
        if match is None:
            return False
        operator = match[2] or match[3]
        self._read.at = match.end()
        self._skip_blanks()
        redirect = Redirect(operator, match[1] or "", self._read.word())
        redirects.append(redirect)
        if operator == "<<<":
            redirect.body = redirect.target
        elif operator in ("<<", "<<-"):
            if self._awaited is not None:
                raise NotUnderstood("several here-documents at once")
            if not redirect.target.text or "\n" in redirect.target.text:
                raise NotUnderstood("the end mark of a here-document")
            self._awaited = _Awaited(redirect, self._read.at)
        return True

    def _read_body(self, awaited: _Awaited) -> None:
        """The body of a here-document begins at this line."""
        if "\n" in self.text[awaited.at : self._read.at - 1]:
            raise NotUnderstood("a here-document whose line goes on")
        redirect, mark = awaited.redirect, awaited.redirect.target.text or ""
        lines: list[str] = []
        while True:
            end = self.text.find("\n", self._read.at)
            line = self.text[self._read.at : end if end >= 0 else len(self.text)]
            if redirect.operator == "<<-":
                line = line.lstrip("\t")
            if line == mark:
                self._read.at = end if end >= 0 else len(self.text)
                break
            if end < 0 or line.startswith(mark):  # bash's versions differ in what ends it
                raise NotUnderstood("a here-document without its end")
            lines.append(line + "\n")
            self._read.at = end + 1
        text = "".join(lines)
        if redirect.target.is_plain:
            redirect.body = self._expanded(text)
        else:
            redirect.body = known(text)
        self._awaited = None

    def _expanded(self, text: str) -> Word:
        """A body in which bash expands; the commands in it are commands of this line."""
        inner = _Parser(text, self.depth + 1)
        inner._go_deeper()
        body = inner._read.body()
        self.commands += inner.commands
        return body

    # -- what is within

    def _enclosed(self) -> None:
        """Commands up to the closing parenthesis, which is read, too."""
        if self._awaited is not None:
            raise NotUnderstood("a here-document whose line goes on")
        self._go_deeper()
        self._num_open += 1
        self._list()
        if self._read.peek() != ")" or self._awaited is not None:
            raise NotUnderstood("a parenthesis that is not closed")
        self._read.at += 1
        self._num_open -= 1
        self.depth -= 1

    def _apart(self, text: str) -> None:
        """The text between back quotes."""
        self._go_deeper()
        self.commands += parse_line(text, self.depth)
        self.depth -= 1

    def _go_deeper(self) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise NotUnderstood(f"more than {MAX_DEPTH} levels of nesting")

    # -- blanks and reserved words

    def _skip_blanks(self) -> None:
        while ((char := self._read.peek()) and char in BLANKS) or self._read.peek(2) == "\\\n":
            self._read.at += 1 if char in BLANKS else 2
        if char == "#":
            if self._num_open:  # bash's versions differ in whether it hides a parenthesis
                raise NotUnderstood("a comment within parentheses")
            end = self.text.find("\n", self._read.at)
            self._read.at = end if end >= 0 else len(self.text)

    def _skip_lines(self) -> None:
        self._skip_blanks()
        while self._read.peek() == "\n":
            self._read.at += 1
            if self._awaited is not None:
                self._read_body(self._awaited)
            self._skip_blanks()

    def _reserved(self) -> str:
        """The reserved word that stands here, where a command may begin; else nothing."""
        match = _RESERVED.match(self.text, self._read.at)
        return match[0] if match is not None and match[0] in _WORDS else ""

    def _unexpected(self) -> NotUnderstood:
        return NotUnderstood(f"{self._read.peek(8)!r}")
