"""A recipe for a person who pastes it, or for a program."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from tightloop.cli.connecting.interface import NO_KEY, Client, Recipe, Setting, Target
from tightloop.cli.connecting.writing import ENVIRONMENT_FILE

RULE_WIDTH = 78


def as_text(client: Client, target: Target, recipe: Recipe, options: Sequence[str] = ()) -> str:
    """What to paste where, and why. ``options`` are those of ``tightloop connect`` for a run."""
    steps: list[list[str]] = []
    for file in recipe.files:
        rule = "-" * RULE_WIDTH
        steps.append([f"{file.place}: {file.why}", rule, file.text.rstrip("\n"), rule])
    shell = [f"  unset {name}   # it would take the place of ours" for name in recipe.unset]
    shell += [f"  {setting.in_shell()}   # {setting.why}" for setting in recipe.settings]
    steps.append(["In your shell, or in the file it reads when it starts:", *shell])
    steps.append(["Then:", f"  {command(client, target, recipe)}"])
    lines = [f"{client.title} with {target.model} at {target.url}"]
    for number, step in enumerate(steps, 1):
        lines += ["", f"{number}. {step[0]}", "", *step[1:]]
    lines += ["", *(f"- {note}" for note in recipe.notes)]
    lines.append(
        f"- Without touching your own configuration: {own_command(client, recipe, options)}"
    )
    lines.append(f"- Not installed yet? {client.install}")
    return "\n".join(lines) + "\n"


def as_written(directory: Path, names: Sequence[str], new: Sequence[Path], then: str) -> str:
    """What ``--write`` did, and what to type ``then``."""
    fresh = {path.name for path in new}
    lines = [
        f"{directory / name}: {'written' if name in fresh else 'was there already'}"
        for name in names
    ]
    start = shlex.join([".", str(directory / ENVIRONMENT_FILE)])
    return "\n".join([*lines, "", "Then:", "", f"  {start}", f"  {then}"]) + "\n"


def as_json(
    client: Client, target: Target, recipe: Recipe, settings: Sequence[Setting], new: Sequence[Path]
) -> str:
    """One JSON object, on one line. A variable without ``value`` gets what ``from`` names."""
    return json.dumps(
        {
            "client": client.name,
            "url": target.url,
            "model": target.model,
            "context_window": target.context_window,
            "files": [
                {"name": file.name, "place": file.place, "why": file.why, "text": file.text}
                for file in recipe.files
            ],
            "environment": [_as_object(setting) for setting in settings],
            "unset": list(recipe.unset),
            "command": command(client, target, recipe),
            "notes": list(recipe.notes),
            "install": client.install,
            "written": [str(path) for path in new],
        },
        ensure_ascii=False,
    )


def command(client: Client, target: Target, recipe: Recipe, directory: Path | None = None) -> str:
    """What a person types when everything is set up, with the recipe's files in ``directory``."""
    names = {file.name for file in recipe.files} if directory is not None else set()
    example = [str(directory / w) if directory and w in names else w for w in recipe.example]
    words = client.arguments(target, example)
    return shlex.join([client.program, *words] if client.program else words)


def own_command(client: Client, recipe: Recipe, options: Sequence[str] = ()) -> str:
    """The same by this program, which gives the client directories of its own."""
    words = ["tightloop", "connect", client.name, *options, "--", *recipe.example]
    return shlex.join(words)


def _as_object(setting: Setting) -> dict[str, str]:
    known = {"name": setting.name, "why": setting.why}
    if setting.value is None:
        return {**known, "from": setting.key_from, "otherwise": NO_KEY}
    return {**known, "value": setting.value}
