"""Licences are admitted by allow-list; functions are cut out whole; near-duplicates are found."""

import pytest

from training.corpus import Overlap, functions_of, is_admitted, licence_of, view_lines


@pytest.mark.parametrize(
    ("metadata", "licence"),
    [
        ("License-Expression: MIT\n", "MIT"),
        ("License-Expression: Apache-2.0 OR BSD-2-Clause\n", "Apache-2.0"),
        ("License: BSD\n", "BSD"),
        ("Classifier: License :: OSI Approved :: Python Software Foundation License\n", "PSF-2.0"),
        ("License-Expression: LGPL-3.0-or-later\n", None),
        ("License: MIT\nClassifier: License :: OSI Approved :: GNU General Public License\n", None),
        ("License-Expression: MPL-2.0 AND MIT\n", None),
        ("Name: something\n", None),
    ],
)
def test_licences(metadata: str, licence: str | None) -> None:
    assert licence_of(metadata) == licence


def test_vendored_files_and_tests_are_not_admitted() -> None:
    assert is_admitted("pkg/core.py")
    assert not is_admitted("pkg/_vendor/core.py")
    assert not is_admitted("pkg/tests/core.py")
    assert not is_admitted("pkg/test_core.py")


def test_functions_come_with_decorators_and_qualified_names() -> None:
    text = "@cached\ndef one():\n    return 1\n\nclass A:\n    def two(self):\n        return 2\n"
    assert [(name, line) for name, line, _ in functions_of(text)] == [("one", 1), ("A.two", 6)]
    assert next(functions_of(text))[2] == "@cached\ndef one():\n    return 1"


def test_a_renamed_copy_is_near() -> None:
    held = (
        "def f(values):\n    total = sum(values)\n    count = len(values)\n    return total / count"
    )
    overlap = Overlap()
    overlap.add(view_lines(held))
    assert overlap.is_near(view_lines(held.replace("def f", "def mean_of")))
    assert not overlap.is_near(["def g(values):", " return sorted(values)[0]"])
