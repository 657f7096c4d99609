"""A small project with four bugs, and what pytest 9 printed about it (recorded)."""

from pathlib import Path

_FOLDER = Path(__file__).parent / "recorded"

SOURCE = (_FOLDER / "source.txt").read_text()
"""``pkg/mathy.py``."""
TESTS = (_FOLDER / "tests.txt").read_text()
"""``test_mathy.py``."""
LONG = (_FOLDER / "long.txt").read_text()
"""``pytest -q``."""
SHORT = (_FOLDER / "short.txt").read_text()
"""``pytest -q --tb=short``."""
BROKEN_IMPORT = (_FOLDER / "broken_import.txt").read_text()
"""A test file whose import fails."""
