"""opencode: a provider in ``opencode.json`` that speaks the Responses API."""

import json
from collections.abc import Sequence
from pathlib import Path

from tightloop.cli.connecting.interface import ConfigFile, Recipe, Setting, Target, key_setting

MAX_OUTPUT_TOKENS = 8192


class OpenCode:
    """The ``opencode`` command."""

    name = "opencode"
    title = "opencode"
    program = "opencode"
    install = "npm install -g opencode-ai"

    def recipe(self, target: Target) -> Recipe:
        config = {
            "$schema": "https://opencode.ai/config.json",
            "autoupdate": False,
            "share": "disabled",
            "model": f"tightloop/{target.model}",
            "small_model": f"tightloop/{target.model}",
            "provider": {"tightloop": _provider(target)},
        }
        text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
        place = "opencode.json in the project, or ~/.config/opencode/opencode.json"
        why = "a provider of its own, by the Responses API instead of Chat Completions"
        return Recipe(
            files=(ConfigFile("opencode.json", place, text, why),),
            settings=(key_setting(target.key_variable, target, "what apiKey refers to"),),
            example=("run", "make the failing test pass"),
            notes=(
                "The first request of a session is for its title and goes to small_model.",
                'For Chat Completions instead, replace "@ai-sdk/openai" by'
                ' "@ai-sdk/openai-compatible".',
            ),
        )

    def home(self, directory: Path) -> Sequence[Setting]:
        kinds = ("DATA", "CONFIG", "CACHE", "STATE")
        return (
            Setting("OPENCODE_CONFIG", str(directory / "opencode.json"), "the file above"),
            *(
                Setting(f"XDG_{kind}_HOME", str(directory / kind.lower()), "its own directories")
                for kind in kinds
            ),
            Setting("OPENCODE_DISABLE_AUTOUPDATE", "1", "nothing leaves this machine unasked"),
            Setting("OPENCODE_DISABLE_MODELS_FETCH", "1", "likewise"),
            Setting("OPENCODE_DISABLE_SHARE", "1", "likewise"),
            Setting("OPENCODE_DISABLE_LSP_DOWNLOAD", "1", "likewise"),
        )

    def arguments(self, target: Target, words: Sequence[str]) -> list[str]:
        return list(words)


def _provider(target: Target) -> dict[str, object]:
    limit = {
        "context": target.context_window,
        "output": min(MAX_OUTPUT_TOKENS, max(1, target.context_window // 4)),
    }
    return {
        "npm": "@ai-sdk/openai",
        "name": "tightloop",
        "options": {"baseURL": target.url, "apiKey": f"{{env:{target.key_variable}}}"},
        "models": {target.model: {"name": target.model, "tool_call": True, "limit": limit}},
    }


CLIENT = OpenCode()
