"""Servers for tests of a command that waits for its answers: they run on a thread."""

import asyncio
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tightloop.engine.scripted import ScriptedEngine, echo_script
from tightloop.governance.keys import KeyRing
from tightloop.server.access import Access
from tightloop.server.app import Server
from tightloop.server.endpoint import Endpoint


@contextmanager
def scripted_server(*keys: str) -> Iterator[str]:
    """The API's root of a real server with the scripted engine."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    access = Access(KeyRing(keys), "127.0.0.1")
    server = Server(Endpoint(ScriptedEngine(echo_script)), access, host="127.0.0.1", port=0)
    try:
        yield asyncio.run_coroutine_threadsafe(server.start(), loop).result()
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(grace_s=0), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextmanager
def canned_server(body: bytes, status: int = 200) -> Iterator[str]:
    """The API's root of a server that answers everything with ``body``."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1"
        finally:
            server.shutdown()
            thread.join()
