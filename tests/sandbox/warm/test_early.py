"""What in a test module may make a difference to imports."""

import pytest

from tightloop.sandbox.warm.early import Import, effect, first_imports, imports, outside_bodies

HARMLESS = [
    "",
    '"""Tests."""\nimport os\nfrom pkg import core\n',
    "import pytest\nnumpy = pytest.importorskip('numpy')\npytest.importorskip('scipy')\n",
    "try:\n    import json5\nexcept ImportError:\n    json5 = None\n",
    "LIMIT: int = 3\nFIRST, SECOND = 1, 2\n",
    "import os\ndef test_a():\n    os.environ['A'] = '1'\n",
    "from unittest.mock import patch\n@patch('pkg.core.x')\ndef test_a(x):\n    pass\n",
    "import os, pytest\n@pytest.mark.skipif('A' in os.environ, reason='')\ndef test_a(): pass\n",
    "class TestA:\n    size = 3\n    def test_a(self):\n        setattr(self, 'a', 1)\n",
    "if __name__ == '__main__':\n    import sys\n    sys.exit(run(sys.argv))\n",
    "def pytest_runtest_setup(item):\n    import os\n    os.environ['A'] = '1'\n",
    "def pytest_configure(config):\n    config.addinivalue_line('markers', 'slow')\n",
]
TELLING = [
    "import os\nos.environ['DEBUG'] = '1'\nimport pkg\n",
    "import sys\nsys.path.insert(0, 'lib')\n",
    "from sys import path\n",
    "import os\nDEBUG = os.environ.setdefault('DEBUG', '1')\n",
    "import pkg\npkg.LIMIT = 3\n",
    "import pkg\npkg.TABLE['x'] = 3\n",
    "import pkg\n(pkg.a, b) = 1, 2\n",
    "import django\ndjango.setup()\n",
    "for x in (1, 2):\n    register(x)\n",
    "raise SystemExit\n",
    "import pkg\ndel pkg.x\n",
    "class TestA:\n    register()\n",
    "import warnings\nX = warnings.simplefilter('error')\n",
    "def prepare():\n    import os\n    os.environ['A'] = '1'\nX = prepare()\n",
    "def pytest_configure(config):\n    import os\n    os.environ['A'] = '1'\n",
    "def pytest_addoption(parser):\n    import sys\n    sys.modules.pop('pkg', None)\n",
    "try:\n    register()\nfinally:\n    pass\n",
]


@pytest.mark.parametrize("text", HARMLESS)
def test_imports_definitions_and_constants_are_harmless(text: str) -> None:
    """And what tests and fixtures do later is their own matter."""
    assert effect(text.encode()) == ""


@pytest.mark.parametrize("text", TELLING)
def test_everything_else_speaks_against_resident_modules(text: str) -> None:
    """State that imports look at, changes to other modules, calls for their effect."""
    assert effect(text.encode()).startswith("line ")


def test_imports_are_those_that_run_with_the_module() -> None:
    """Blocks around them count, functions do not."""
    base = "import a\nif X:\n    import b\ndef f():\n    import c\n"
    assert imports(base.encode()) == imports(base.replace("import c", "import d").encode())
    assert imports(base.encode()) == imports((base + "Y = 3\n").encode())
    assert imports(base.encode()) != imports(base.replace("if X", "if not X").encode())
    assert imports(base.encode()) != imports(base.replace("import a\n", "").encode())
    in_class = "class T:\n    import a\n    def t(self):\n        return 1\n"
    assert imports(in_class.encode()) == imports(in_class.replace("1", "2").encode())
    assert imports(in_class.encode()) != imports(in_class.replace("import a", "import b").encode())


def test_only_certain_imports_are_taken() -> None:
    """Relative ones from their package; what a condition or a function imports is left to it."""
    text = "import a.b, c\nfrom d import e, f\nfrom . import g\nfrom ..h import *\n"
    text += "if X:\n    import i\ntry:\n    import j\nexcept ImportError:\n    j = 0\n"
    relative = [("p.q", ("g",)), ("p.h", ("*",))]
    absolute: list[Import] = [("a.b", ()), ("c", ()), ("d", ("e", "f"))]
    assert first_imports(text.encode(), "p.q") == absolute + relative
    assert first_imports(text.encode(), "") == absolute


def test_a_conftest_is_what_is_outside_its_functions_and_its_hooks() -> None:
    """Fixtures may change, hooks and settings of the collection may not."""
    base = (
        "collect_ignore = []\ndef fixture():\n    return 1\ndef pytest_configure(c):\n    a = 1\n"
    )
    assert outside_bodies(base.encode()) == outside_bodies(
        base.replace("return 1", "return 2").encode()
    )
    for old, new in (("[]", "['x.py']"), ("a = 1", "a = 2")):
        assert outside_bodies(base.encode()) != outside_bodies(base.replace(old, new).encode())
