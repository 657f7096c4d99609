"""The page ``docs/attacks.md``: every attack and what comes of it, from the declarations.

``tests/attacks`` runs exactly these declarations, so the page says what was seen.
"""

from pathlib import Path

from tests.attacks import catalog
from tests.attacks.attack import SETTINGS, Attack, ByTest, Outcome, Probe, outcome_at

PAGE = Path(__file__).parents[2] / "docs" / "attacks.md"
_SECTIONS = {
    "F": "Files",
    "N": "Network and sockets",
    "P": "Processes",
    "S": "Secrets",
    "W": "Warm processes",
    "A": "Agent",
}
_HEAD = """# Attacks that are tried

Each attack is run for real: first without isolation, where it has to succeed, then with each kind. The table says
how it ends: the error that a program gets, or what it sees. `ok` means that the attack succeeded; such a row says
why. Where it matters who runs the agent, `root`, `user` (an ordinary user) and `mapped` (an ordinary user who is
uid 0 in a user namespace) stand before the outcome, and `overlay` where the workspace is one.

| word | meaning |
|---|---|
| `private` | the program may think that it succeeded; the host has nothing of it |
| `EROFS` | a read-only file system |
| `EACCES`, `EXDEV` | Landlock, or another mount |
| `EPERM` | the system call filter, or missing rights |
| `ENOENT`, `ESRCH` | it is not visible |
| `ECONNREFUSED`, `ENETUNREACH` | the sandbox's own, empty network |

`python -m tests.attacks` runs all of them on your machine and prints this table with what it saw.
"""


def page() -> str:
    """The text of the page."""
    lines = [_HEAD]
    attacks = catalog.declared()
    for letter, title in _SECTIONS.items():
        lines += [
            f"\n## {title}\n",
            "| attack | how | without | bubblewrap | landlock |",
            "|---|---|---|---|---|",
        ]
        for attack in attacks:
            if attack.number.startswith(letter):
                lines += rows(attack)
    return "\n".join([*lines, *gaps(attacks)]) + "\n"


def rows(attack: Attack | ByTest) -> list[str]:
    """The lines of one attack in the table."""
    title = f"{attack.number} {attack.what}"
    if isinstance(attack, ByTest):
        return [f"| {title} | | | {attack.result} | {attack.result} |"]
    if attack.platform:
        return [f"| {title} | not run: needs {attack.platform} | | | |"]
    lines = []
    for probe in attack.probes:
        cells = (
            title,
            probe.name,
            *map(described, (probe.control, probe.bubblewrap, probe.landlock), (probe,) * 3),
        )
        lines.append("| " + " | ".join(cells) + " |")
        title = ""
    return lines


def described(outcome: Outcome, probe: Probe) -> str:
    """``EROFS``, or ``root EROFS, user EACCES``: what differs by setting stands before it."""
    settings = [setting for setting in SETTINGS if probe.is_for(setting)]
    by_setting = {setting: _escaped(outcome_at(outcome, setting)) for setting in settings}
    outcomes = list(dict.fromkeys(by_setting.values()))
    if len(outcomes) == 1:
        return f"`{outcomes[0]}`"
    for key in ("user", "place"):
        groups = {getattr(setting, key): said for setting, said in by_setting.items()}
        if all(groups[getattr(setting, key)] == said for setting, said in by_setting.items()):
            return ", ".join(f"{name} `{said}`" for name, said in groups.items())
    return ", ".join(f"{setting} `{said}`" for setting, said in by_setting.items())


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def gaps(attacks: list[Attack | ByTest]) -> list[str]:
    """What is known to succeed, and why."""
    lines = [
        f"- {attack.number} {probe.name}: {probe.gap}"
        for attack in attacks
        if isinstance(attack, Attack)
        for probe in attack.probes
        if probe.gap
    ]
    return ["\n## Known gaps\n", *lines] if lines else []
