"""The OpenAI SDKs and openai-agents: two variables, whatever the program."""

from collections.abc import Sequence
from pathlib import Path

from tightloop.cli.connecting.interface import ConfigFile, Recipe, Setting, Target, key_setting

_PROGRAM = '''\
"""A conversation over one WebSocket: each turn sends only what is new.

pip install "openai[realtime]"; the server and the key come from OPENAI_BASE_URL and OPENAI_API_KEY.
"""

from openai import OpenAI

MODEL = {model!r}


def ask(connection, text, previous=None):
    """Print the answer as it comes; its id continues the conversation."""
    connection.response.create(
        model=MODEL, store=False, previous_response_id=previous, input=text
    )
    for event in connection:
        if event.type == "response.output_text.delta":
            print(event.delta, end="", flush=True)
        elif event.type == "response.completed":
            print()
            return event.response.id
        elif event.type in ("error", "response.failed", "response.incomplete"):
            raise SystemExit(event.to_json())


with OpenAI() as client, client.responses.connect() as connection:
    first = ask(connection, "Say hello.")
    ask(connection, "And once more, shorter.", previous=first)
'''


class OpenAiSdk:
    """Any program that uses an OpenAI SDK; the words after ``--`` are that program."""

    name = "openai"
    title = "OpenAI SDKs and openai-agents"
    program = None
    install = 'pip install "openai[realtime]"'

    def recipe(self, target: Target) -> Recipe:
        text = _PROGRAM.format(model=target.model)
        why = "an example that uses WebSocket mode; your own programs need the variables only"
        return Recipe(
            files=(ConfigFile("hello.py", "anywhere", text, why),),
            settings=(
                Setting("OPENAI_BASE_URL", target.url, "the server"),
                key_setting("OPENAI_API_KEY", target, "the SDKs do not start without one"),
                Setting("OPENAI_AGENTS_DISABLE_TRACING", "1", "openai-agents would send traces"),
            ),
            example=("python", "hello.py"),
            notes=(
                f"Name the model in the program: {target.model!r}.",
                "openai-agents keeps one WebSocket a run after"
                ' set_default_openai_responses_transport("websocket").',
            ),
        )

    def home(self, directory: Path) -> Sequence[Setting]:
        return ()

    def arguments(self, target: Target, words: Sequence[str]) -> list[str]:
        return list(words)


CLIENT = OpenAiSdk()
