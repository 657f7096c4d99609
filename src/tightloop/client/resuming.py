"""Reading a response on over another connection: ``GET /responses/{id}?stream=true``.

Servers that keep no stream of the response refuse it, and then it has to be asked for again.
"""

from collections.abc import AsyncGenerator, Callable
from typing import Final
from urllib.parse import quote

import aiohttp

from tightloop.client.event_stream import read_events
from tightloop.client.transport import Event

CONNECT_S: Final = 5.0
SILENCE_S: Final = 60.0
"""No byte for so long: the way is broken again. A server of ours says something every 5 s."""


def resumed_events(
    session: Callable[[], aiohttp.ClientSession],
    url: str,
    response_id: str,
    after: int,
    **options: object,
) -> AsyncGenerator[Event, None]:
    """See ``transport.ResumingTransport.resume``. ``options`` are aiohttp's for the request."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENCE_S)
    return read_events(
        lambda: session().get(
            f"{url}/responses/{quote(response_id, safe='')}",
            params={"stream": "true", "starting_after": str(after)},
            headers={"Accept": "text/event-stream"},
            timeout=timeout,
            allow_redirects=False,
            **options,  # type: ignore[arg-type]
        ),
        url,
    )
