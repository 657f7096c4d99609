"""Claude Code: a ``settings.json`` whose ``env`` names the server; Anthropic Messages on the wire."""

import json
from collections.abc import Sequence
from pathlib import Path

from tightloop.cli.connecting.interface import ConfigFile, Recipe, Setting, Target, key_setting


class Claude:
    """The ``claude`` command. Its base URL is without ``/v1``."""

    name = "claude"
    title = "Claude Code"
    program = "claude"
    install = "npm install -g @anthropic-ai/claude-code"

    def recipe(self, target: Target) -> Recipe:
        text = json.dumps({"env": _environment(target)}, indent=2, ensure_ascii=False) + "\n"
        why = "names the server, and the model for every size that Claude Code asks for"
        return Recipe(
            files=(ConfigFile("settings.json", "~/.claude/settings.json", text, why),),
            settings=(key_setting("ANTHROPIC_AUTH_TOKEN", target, "sent as the API key"),),
            example=("-p", "make the failing test pass"),
            notes=(
                "Claude Code sends the whole history every turn; the server finds the part that it"
                " knows and computes the rest only.",
                "To leave your own settings alone: claude --settings FILE, with the file above.",
            ),
            unset=("ANTHROPIC_API_KEY",),
        )

    def home(self, directory: Path) -> Sequence[Setting]:
        return (Setting("CLAUDE_CONFIG_DIR", str(directory), "settings, sessions and caches"),)

    def arguments(self, target: Target, words: Sequence[str]) -> list[str]:
        return list(words)


def _environment(target: Target) -> dict[str, str]:
    sizes = ("SMALL_FAST", "DEFAULT_HAIKU", "DEFAULT_SONNET", "DEFAULT_OPUS")
    return {
        "ANTHROPIC_BASE_URL": target.root,
        "ANTHROPIC_MODEL": target.model,
        **{f"ANTHROPIC_{size}_MODEL": target.model for size in sizes},
        # Nothing leaves this machine unasked.
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_TELEMETRY": "1",
        "DISABLE_ERROR_REPORTING": "1",
        "DISABLE_AUTOUPDATER": "1",
    }


CLIENT = Claude()
