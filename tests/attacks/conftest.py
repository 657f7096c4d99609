"""One run of all probes that were selected, and the list of what this machine cannot run."""

from pathlib import Path
from typing import Any

import pytest

from tests.attacks import runner
from tests.attacks.not_run import not_run


@pytest.fixture(scope="session")
def answers(request: pytest.FixtureRequest) -> runner.Answers:
    """What every backend showed in every setting, of the probes that were selected."""
    # Other packages of the same session have parameters of these names, and other things in them.
    parameters: list[dict[str, Any]] = [
        item.callspec.params
        for item in request.session.items
        if item.path.parent == Path(__file__).parent
        and isinstance(item, pytest.Function)
        and hasattr(item, "callspec")
    ]
    cases = [each["case"] for each in parameters if "case" in each]
    settings = [case.setting for case in cases]
    settings += [each["setting"] for each in parameters if "setting" in each]
    return runner.run_settings(dict.fromkeys(settings), dict.fromkeys(case.name for case in cases))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Nothing is left out silently."""
    missing = not_run()
    terminalreporter.write_line(f"attacks that cannot run here: {len(missing)}")
    for line in missing:
        terminalreporter.write_line(f"  {line}")
