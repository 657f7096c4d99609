"""Byte code that is kept must be that of the very text, and never hide a warning."""

import os
import warnings
from pathlib import Path
from types import CodeType

import pytest

from tightloop.sandbox.warm.compiled import IMPORT, Codes


def make(text: bytes, made: list[bytes]) -> CodeType:
    """Compiles, and notes that it did."""
    made.append(text)
    code = compile(text, "a.py", "exec")
    assert isinstance(code, CodeType)
    return code


def passed_on(codes: Codes) -> Codes:
    """What another process would know."""
    fd = codes.take_fresh()
    other = Codes()
    other.add(fd)
    os.close(fd)
    return other


def test_a_text_is_compiled_once() -> None:
    """The next process takes what the first has made, but not for another text, path or kind."""
    keeping = Codes()
    keeping.keep("import", "a.py", b"x = 1", lambda: make(b"x = 1", []))
    keeping.keep("import", "a.py", b"y = 2", lambda: make(b"y = 2", []))
    other, names = passed_on(keeping), dict[str, int]()
    found = other.find("import", "a.py", b"y = 2")
    assert found is not None
    exec(found, names)
    assert names["y"] == 2
    assert other.find("import", "a.py", b"y = 3") is None
    assert other.find("rewrite", "a.py", b"y = 2") is None
    assert other.find("import", "b.py", b"y = 2") is None


def test_what_warns_is_compiled_each_time() -> None:
    """The warning comes where it would without us, and again in the next process."""
    keeping, made = Codes(), list[bytes]()
    text = b"x = 1 is 1"
    with pytest.warns(SyntaxWarning):
        keeping.keep("import", "a.py", text, lambda: make(text, made))
    assert (len(made), keeping.take_fresh()) == (2, -1)


def test_an_error_is_the_error() -> None:
    """Nothing is kept of what does not compile."""
    keeping = Codes()
    with warnings.catch_warnings(), pytest.raises(SyntaxError):
        keeping.keep("import", "a.py", b"x =", lambda: make(b"x =", []))
    assert keeping.take_fresh() == -1


def test_modules_are_compiled_without_being_run(tmp_path: Path) -> None:
    """Those that cannot be are left to whoever imports them, and so are their warnings."""
    texts = {"good.py": "raise SystemExit\n", "bad.py": "x =\n", "warns.py": "x = 1 is 1\n"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    keeping = Codes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        keeping.keep_modules(str(tmp_path / name) for name in [*texts, "missing.py"])
    other = passed_on(keeping)
    found = {
        name: other.find(IMPORT, str(tmp_path / name), text.encode()) is not None
        for name, text in texts.items()
    }
    assert found == {"good.py": True, "bad.py": False, "warns.py": False}
