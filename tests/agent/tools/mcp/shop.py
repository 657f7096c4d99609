"""A real MCP server, written with the official library, with a tool for every corner.

``python shop.py``: over standard streams. ``python shop.py http``: on a port of its own, which is the
first line that it prints.
"""

import os
import socket
import subprocess
import sys
from base64 import b64decode
from typing import Any

import anyio
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.utilities.types import Image
from mcp_types import ToolAnnotations

PIXEL = b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8AAAAASUVORK5CYII="
)
server = MCPServer("shop")


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool()
def facts() -> dict[str, Any]:
    """What this process is."""
    return {"pid": os.getpid(), "directory": os.getcwd(), "variables": sorted(os.environ)}


@server.tool(structured_output=False)
def picture() -> list[Any]:
    """A pixel."""
    return ["a pixel", Image(data=PIXEL, format="png")]


@server.tool(name="shelf.list")
def shelf_list(num_lines: int) -> str:
    """A long text."""
    return "\n".join(f"line {n}" for n in range(num_lines))


@server.tool()
def fail(reason: str) -> str:
    """Fail."""
    raise ToolError(reason)


@server.tool()
def die(words: str) -> str:
    """End the server at once."""
    print(words, file=sys.stderr, flush=True)
    os._exit(3)


@server.tool()
async def wait(directory: str) -> str:
    """Say so in the pipe ``waiting``; wait; say in the pipe ``cancelled`` that it is no more."""
    say(f"{directory}/waiting")
    try:
        await anyio.sleep_forever()
    finally:
        say(f"{directory}/cancelled")
    return "never"


def say(pipe: str) -> None:
    """Whoever reads the pipe goes on."""
    with open(pipe, "w", encoding="ascii") as file:
        file.write("yes")


@server.tool()
def leave_behind() -> list[int]:
    """Start two processes that nobody waits for, one in a session of its own."""
    command = ["sleep", "1000"]
    near = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    far = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
    )
    return [near.pid, far.pid]


@server.tool()
def key(ctx: Context) -> str:
    """The key that came with the request."""
    return (ctx.headers or {}).get("authorization", "none")


def serve_http() -> None:
    """Until the process is ended."""
    import uvicorn

    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    app = server.streamable_http_app(host="127.0.0.1")
    config = uvicorn.Config(app, log_level="error")
    anyio.run(uvicorn.Server(config).serve, [listener])


if __name__ == "__main__":
    serve_http() if sys.argv[1:] == ["http"] else server.run()
