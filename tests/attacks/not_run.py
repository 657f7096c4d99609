"""What this machine cannot run, for comparison with what it is known not to run."""

import os
import shutil
from pathlib import Path

from tests.attacks import catalog
from tests.attacks.attack import PATH, SETTINGS, Attack, available_settings

EXPECTED = Path(__file__).with_name("not_run.txt")


def not_run() -> list[str]:
    """Attacks of other systems, and settings that this user cannot get into."""
    lines = [
        f"{attack.number}: needs {attack.platform}"
        for attack in catalog.declared()
        if isinstance(attack, Attack) and attack.platform
    ]
    lines += [
        f"{name}: needs the program {probe.program}"
        for name, probe in catalog.probes().items()
        if probe.is_missing
    ]
    lines += [
        f"setting {setting}: needs uid 0"
        for setting in SETTINGS
        if setting not in available_settings()
    ]
    return lines


def expected() -> list[str]:
    """The committed list; lines after ``ordinary:`` hold for a run by an ordinary user only, and
    those about a program only where it is not installed."""
    lines = EXPECTED.read_text().splitlines()
    is_root = os.geteuid() == 0
    return [
        line.removeprefix("ordinary: ")
        for line in lines
        if not (is_root and line.startswith("ordinary: "))
        and not shutil.which(line.partition("needs the program ")[2], path=PATH)
    ]
