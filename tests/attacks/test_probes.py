"""Every probe in every setting, against every backend: exactly what is declared, and no trace."""

from dataclasses import dataclass

import pytest

from tests.attacks import catalog, runner
from tests.attacks.attack import BACKENDS, CONTROL, Probe, Setting, available_settings

PROBES = catalog.probes()
# Whoever asks first waits for all probes in all settings; the owners have a time limit of their own.
pytestmark = pytest.mark.timeout(runner.LIMIT_S * 2)


@dataclass(frozen=True, slots=True)
class Case:
    """One probe in one setting against one backend."""

    name: str
    setting: Setting
    backend: str

    @property
    def probe(self) -> Probe:
        """What was declared."""
        return PROBES[self.name]


CASES = [
    Case(name, setting, backend)
    for name, probe in PROBES.items()
    for setting in available_settings()
    if probe.is_for(setting)
    for backend in BACKENDS
]


@pytest.fixture
def observed(case: Case, answers: runner.Answers) -> str:
    """What the sandbox made of the attack, which worked without one; else the test is in error."""
    control = answers[case.setting, CONTROL]
    assert not control.error, f"the control could not run: {control.error}"
    expected = case.probe.expected(CONTROL, case.setting)
    assert expected == control.outcomes[case.name], "the attack fails without isolation too"
    answer = answers[case.setting, case.backend]
    assert not answer.error, f"no isolation, so nothing is proven: {answer.error}"
    return answer.outcomes[case.name]


@pytest.mark.parametrize(
    "case", CASES, ids=[f"{case.name}-{case.backend}-{case.setting}" for case in CASES]
)
def test_the_attack_ends_as_declared(case: Case, observed: str) -> None:
    """The exact outcome shows which layer stopped it."""
    assert case.probe.expected(case.backend, case.setting) == observed


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("setting", available_settings(), ids=str)
def test_nothing_is_left_on_the_host(
    backend: str, setting: Setting, answers: runner.Answers
) -> None:
    """No new or changed file, no process, no mount."""
    answer = answers[setting, backend]
    assert not answer.error, f"no isolation, so nothing is proven: {answer.error}"
    assert answer.left == ()
