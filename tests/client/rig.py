"""A server with a scripted engine and one transport of each kind to it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tightloop.client.http import HttpTransport
from tightloop.client.in_memory import InMemoryTransport
from tightloop.client.transport import Transport
from tightloop.client.websocket import WebSocketTransport
from tightloop.engine.scripted import Script, ScriptedEngine, echo_script
from tightloop.governance.keys import KeyRing
from tightloop.server.access import Access
from tightloop.server.app import Server
from tightloop.server.endpoint import Endpoint

KINDS = ("in_memory", "websocket", "http", "http_new_connection")


@dataclass(slots=True)
class Rig:
    """What a test of a transport needs to reach."""

    engine: ScriptedEngine
    endpoint: Endpoint
    server: Server
    transport: Transport
    key: str | None = None

    def another(self, kind: str, key: str | None = None) -> Transport:
        """A further transport to the same server."""
        return make_transport(kind, self.endpoint, self.server.url, key)


def make_transport(kind: str, endpoint: Endpoint, url: str, key: str | None = None) -> Transport:
    """The transport of that kind."""
    if kind == "in_memory":
        return InMemoryTransport(endpoint)
    if kind == "websocket":
        return WebSocketTransport(url, key)
    return HttpTransport(url, key, reuse_connection=kind == "http")


@asynccontextmanager
async def running(
    kind: str, script: Script = echo_script, *, key: str | None = None
) -> AsyncIterator[Rig]:
    """A rig that is up, and taken down whatever the test did."""
    engine = ScriptedEngine(script)
    endpoint = Endpoint(engine)
    access = Access(KeyRing([key] if key else []), "127.0.0.1")
    server = Server(endpoint, access, host="127.0.0.1", port=0)
    await server.start()
    transport = make_transport(kind, endpoint, server.url, key)
    try:
        yield Rig(engine, endpoint, server, transport, key)
    finally:
        await transport.close()
        await server.stop(grace_s=0)
