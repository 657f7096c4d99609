"""The list is complete, the page is current, and a missing sandbox is never a pass."""

from collections import Counter
from pathlib import Path

import pytest

from tests.attacks import catalog, page, runner
from tests.attacks.attack import BACKENDS, CONTROL, Attack, available_settings
from tests.attacks.not_run import expected, not_run


def test_every_number_is_there_exactly_once() -> None:
    """An attack of the list that nobody tries would look like one that is stopped."""
    declared = Counter(attack.number for attack in catalog.declared())
    assert dict.fromkeys(catalog.NUMBERS, 1) == dict(declared)


def test_every_attack_has_a_probe_or_says_what_it_needs() -> None:
    """A number alone proves nothing."""
    empty = [
        attack.number
        for attack in catalog.declared()
        if isinstance(attack, Attack) and bool(attack.probes) == bool(attack.platform)
    ]
    assert empty == []


def test_a_success_inside_says_why() -> None:
    """Gaps are declared, so that no row becomes one by a small edit."""
    settings = available_settings()
    silent = [
        name
        for name, probe in catalog.probes().items()
        if not probe.gap
        and any(
            probe.expected(backend, setting) == probe.expected(CONTROL, setting)
            for backend in BACKENDS
            for setting in settings
        )
    ]
    assert silent == []


def test_what_cannot_run_here_is_what_is_known() -> None:
    """Nothing is skipped silently."""
    assert expected() == not_run()


def test_the_page_is_current() -> None:
    """After a change: ``python -m tests.attacks --page``."""
    assert page.page() == page.PAGE.read_text()


def test_a_missing_backend_is_an_error_with_the_remedy(tmp_path: Path) -> None:
    """Whoever has no bubblewrap hears so, and what to install."""
    for program in ("git", "cp", "unshare"):
        (tmp_path / program).symlink_to(f"/usr/bin/{program}")
    setting = available_settings()[0]
    name = next(iter(catalog.probes()))
    answers = runner.run_settings([setting], [name], path=str(tmp_path))
    assert "install the package 'bubblewrap'" in answers[setting, "bubblewrap"].error
    with pytest.raises(KeyError):
        answers[setting, "bubblewrap"].outcomes[name]
