"""mini-swe-agent: variables only; Chat Completions through litellm."""

from collections.abc import Sequence
from pathlib import Path

from tightloop.cli.connecting.interface import Recipe, Setting, Target, key_setting


class Mini:
    """The ``mini`` command."""

    name = "mini"
    title = "mini-swe-agent"
    program = "mini"
    install = "pip install mini-swe-agent"

    def recipe(self, target: Target) -> Recipe:
        return Recipe(
            files=(),
            settings=(
                Setting("OPENAI_BASE_URL", target.url, "the server"),
                Setting("OPENAI_API_BASE", target.url, "the same, by litellm's older name"),
                key_setting("OPENAI_API_KEY", target, "litellm does not start without one"),
                Setting("MSWEA_CONFIGURED", "true", "no questions at the first start"),
                Setting("MSWEA_COST_TRACKING", "ignore_errors", "no price list has this model"),
                Setting("LITELLM_LOCAL_MODEL_COST_MAP", "True", "nor is one downloaded"),
            ),
            example=("-t", "make the failing test pass"),
            notes=("It ends when the model runs the command that submits its work.",),
        )

    def home(self, directory: Path) -> Sequence[Setting]:
        return (Setting("MSWEA_GLOBAL_CONFIG_DIR", str(directory), "configuration and runs"),)

    def arguments(self, target: Target, words: Sequence[str]) -> list[str]:
        return ["-m", f"openai/{target.model}", *words]


CLIENT = Mini()
