"""What a running server serves, asked for with the standard library: nothing else is imported."""

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tightloop.cli.connecting.interface import DEFAULT_CONTEXT_WINDOW, ConnectError
from tightloop.cli.serve import DEFAULT_PORT

DEFAULT_URL = f"http://127.0.0.1:{DEFAULT_PORT}/v1"
TIMEOUT_S = 15.0


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model of the server; ``context_window`` in tokens."""

    name: str
    context_window: int


def api_root(text: str) -> str:
    """The API's root; a missing path becomes ``/v1``. Raises ``ConnectError``."""
    url = text.rstrip("/")
    try:
        parts = urlsplit(url)
        is_http = parts.scheme in ("http", "https") and bool(parts.hostname)
        port = parts.port
    except ValueError:
        is_http, port = False, None
    if is_http and "@" in parts.netloc:
        raise ConnectError(
            "--url: leave the name and password out, and name a variable that holds the key with"
            " --api-key-env"
        )
    if not is_http or parts.query or parts.fragment or port == 0:
        raise ConnectError(f"--url: {text!r} is not an http URL like {DEFAULT_URL}")
    return url if parts.path else f"{url}/v1"


def ask_models(url: str, key: str | None, key_variable: str) -> list[ServedModel]:
    """The models at ``url``, the default one first; never empty. Raises ``ConnectError``."""
    request = urllib.request.Request(f"{url}/models")
    if key:
        request.add_header("Authorization", f"Bearer {key}")
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=TIMEOUT_S) as answer:
            listed: Any = json.loads(answer.read())
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in (401, 403):
            reason = f"refuses the key in ${key_variable}" if key else "wants an API key"
            raise ConnectError(
                f"{url} {reason} (status {error.code}); put it into ${key_variable}, or name"
                " another variable with --api-key-env"
            ) from error
        raise ConnectError(f"{url}/models answers with status {error.code}") from error
    except OSError as error:
        raise ConnectError(
            f"no server answers at {url} ({_reason(error)}); start one with"
            f" '{start_command(url)}', or name another with --url"
        ) from error
    except ValueError as error:
        raise ConnectError(f"{url}/models is not JSON; is it a model server?") from error
    return _models(listed, url)


def start_command(url: str) -> str:
    """The command that starts a server at ``url``, as far as a URL can say."""
    parts = urlsplit(url)
    words = ["tightloop serve"]
    if parts.hostname not in ("127.0.0.1", "localhost"):
        words.append(f"--host {parts.hostname} --api-key KEY")
    if parts.port not in (None, DEFAULT_PORT):
        words.append(f"--port {parts.port}")
    return " ".join(words)


def _reason(error: OSError) -> str:
    cause = getattr(error, "reason", error)
    return str(getattr(cause, "strerror", None) or cause)


def _models(listed: Any, url: str) -> list[ServedModel]:
    """SDKs' list gives the names; Codex's, where there is one, the sizes."""
    try:
        names = [str(entry["id"]) for entry in listed["data"]]
        catalogue = listed.get("models") or []
        windows = {entry["slug"]: int(entry["context_window"]) for entry in catalogue}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConnectError(f"{url}/models lists models in a form not known here") from error
    if not names:
        raise ConnectError(f"{url} serves no model; name one with --model")
    return [ServedModel(name, windows.get(name, DEFAULT_CONTEXT_WINDOW)) for name in names]
