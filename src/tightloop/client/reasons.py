"""Why a connection failed, in the words a person needs: aiohttp's own hold pages of its objects."""

import aiohttp


def reason_of(error: BaseException) -> str:
    """One line about ``error``, never empty."""
    match error:
        case aiohttp.ClientConnectorError():
            inner = error.os_error
            text = inner.strerror or str(inner)
        case aiohttp.ClientResponseError():
            text = f"it answered what is no HTTP: {error.message}"
        case TimeoutError():
            text = "no answer in time"
        case OSError():
            text = error.strerror or str(error)
        case _:
            text = str(error)
    lines = [line.strip() for line in text.splitlines()]
    return " ".join(filter(None, lines)) or type(error).__name__
