"""``python -m tests.attacks [F F10 N4 ...]``: every attack, or those numbers, here and now.

``--page`` writes docs/attacks.md instead. The exit status is 1 when something is not as declared.
"""

import sys

from tests.attacks import catalog, page, runner
from tests.attacks.attack import BACKENDS, CONTROL, available_settings
from tests.attacks.not_run import not_run


def main() -> int:
    """Prints one line for each probe and setting."""
    if sys.argv[1:] == ["--page"]:
        page.PAGE.write_text(page.page())
        return 0
    probes = {name: one for name, one in catalog.probes().items() if _is_wanted(name)}
    settings = available_settings()
    answers = runner.run_settings(settings, probes)
    num_wrong = 0
    for name, probe in probes.items():
        for setting in settings:
            if not probe.is_for(setting):
                continue
            cells = []
            for backend in (CONTROL, *BACKENDS):
                answer = answers[setting, backend]
                said = answer.error or answer.outcomes[name]
                expected = probe.expected(backend, setting)
                num_wrong += said != expected
                cells.append(said if said == expected else f"{said} (EXPECTED {expected})")
            print(f"| {name} | {setting} | " + " | ".join(cells) + " |")
    for (setting, backend), answer in answers.items():
        for line in answer.left if backend != CONTROL else ():
            num_wrong += 1
            print(f"left by {backend} in {setting}: {line}")
    for line in not_run():
        print(f"not run: {line}")
    print(f"{num_wrong} outcomes are not as declared")
    return 1 if num_wrong else 0


def _is_wanted(name: str) -> bool:
    number = name.partition(" ")[0]
    return len(sys.argv) == 1 or number in sys.argv[1:] or number[0] in sys.argv[1:]


if __name__ == "__main__":
    sys.exit(main())
