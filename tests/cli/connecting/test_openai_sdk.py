"""The OpenAI SDKs: two variables, and an example that runs."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.connecting.serving import scripted_server
from tightloop.cli.connecting.interface import Target
from tightloop.cli.connecting.openai_sdk import CLIENT


@pytest.mark.slow
def test_the_example_holds_a_conversation(tmp_path: Path) -> None:
    """As it is written, with the variables as they are given, over a WebSocket."""
    with scripted_server() as url:
        recipe = CLIENT.recipe(Target(url, "scripted", "NO_SUCH_KEY"))
        (tmp_path / "hello.py").write_text(recipe.files[0].text, "utf-8")
        environment = {setting.name: setting.among({}) for setting in recipe.settings}
        done = subprocess.run(
            [sys.executable, *recipe.example[1:]],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=50, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "echo: Say hello.\necho: And once more, shorter.\n"


def test_it_has_no_home_and_the_words_are_the_program() -> None:
    """An SDK keeps nothing."""
    assert CLIENT.program is None
    assert list(CLIENT.home(Path("/d"))) == []
    assert CLIENT.arguments(Target("u", "m", "K"), ["python", "x.py"]) == ["python", "x.py"]
