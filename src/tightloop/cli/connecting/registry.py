"""The clients by name. A new client is a module with ``CLIENT`` in it and a line here."""

import importlib

from tightloop.cli.connecting.interface import Client

CLIENTS = {
    "codex": "tightloop.cli.connecting.codex",
    "claude": "tightloop.cli.connecting.claude",
    "opencode": "tightloop.cli.connecting.opencode",
    "openai": "tightloop.cli.connecting.openai_sdk",
    "mini": "tightloop.cli.connecting.mini",
}


def client_named(name: str) -> Client:
    """The client; KeyError for a name that is not in ``CLIENTS``."""
    client: Client = importlib.import_module(CLIENTS[name]).CLIENT
    return client
