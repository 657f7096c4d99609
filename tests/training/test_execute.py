"""Only pure functions are cut out, with what they need; children are limited."""

import pytest

from training.baseline import pass_at
from training.execute import Slice, in_child, passes

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

MODULE = """
import math
import os
from functools import lru_cache

SCALE = 2


def helper(x):
    return math.floor(x) * SCALE


@lru_cache
def pure(x):
    return helper(x)


def impure(x):
    return os.getcwd()


def prints(x):
    print(x)
"""


def test_a_pure_function_comes_with_what_it_needs() -> None:
    module = Slice(MODULE).cut("pure")
    assert module is not None
    namespace: dict[str, object] = {}
    exec(module, namespace)
    assert namespace["SCALE"] == 2
    assert "impure" not in namespace
    assert "import os" not in module


@pytest.mark.parametrize("name", ["impure", "prints", "missing"])
def test_what_touches_the_outside_is_refused(name: str) -> None:
    module = Slice(MODULE).cut(name)
    assert module is None or name not in module


def test_a_child_that_dies_gives_nothing() -> None:
    def die() -> None:
        raise SystemExit(3)

    assert in_child(lambda: [1, "a"]) == [1, "a"]
    assert in_child(die) is None


def test_tests_pass_fail_or_hang() -> None:
    tests = "from target import f\n\ndef test_f():\n    assert f(2) == 4\n"
    assert passes("def f(x):\n    return x * 2\n", tests)
    assert not passes("def f(x):\n    return x\n", tests)
    assert not passes("def f(x):\n    while True: pass\n", tests)
    assert not passes("def f(x):\n    return x * 2\n", "")


def test_chance_of_drawing_a_passing_candidate() -> None:
    assert pass_at(10, 0, 8) == 0
    assert pass_at(10, 1, 1) == pytest.approx(0.1)
    assert pass_at(10, 3, 8) == 1
    assert pass_at(4, 1, 2) == pytest.approx(0.5)
    assert pass_at(0, 0, 1) == 0
