"""``GET /v1/models`` for two audiences in one answer, and ``GET /v1/models/{id}``.

SDKs read ``data``. Codex reads ``models``: a model that is not in it gets no patch tool, and what the
entry says decides how much Codex sends and how soon it can be steered. Why each field is as it is:
design/0013-connect-and-reference.md. Source: what Codex 0.169 reads, and its behaviour measured.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import orjson
from aiohttp import web

from tightloop.engine.interface import ModelInfo
from tightloop.protocol.errors import ApiError
from tightloop.protocol.prefill import PREFILL
from tightloop.server.endpoint import Endpoint
from tightloop.trace import clock

DEFAULT_CONTEXT_WINDOW = 32768
OUTPUT_LIMIT_BYTES = 10_000
"""Of a command's output, what Codex sends back: more is cut in the middle."""

BASE_INSTRUCTIONS = (
    "You are a coding agent in the user's repository. Look before you change: read the files"
    " concerned, run the tests that show the problem. Edit files with apply_patch. Run the tests"
    " again after each change, and go on until the task is done. Then say in one or two sentences"
    " what you changed."
)
"""What Codex puts in front of every conversation. Short, because each session prefills it."""


class ModelsApi:
    """Handlers of the models' routes. They raise ``ApiError``; ``app`` words it for the wire."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._started_at = clock.unix_s()

    async def list(self, request: web.Request) -> web.Response:
        """Every model served, the default one first: ``data`` for SDKs, ``models`` for Codex.

        The answer carries an ``ETag``; a request whose ``If-None-Match`` names it gets 304 and no
        body, so a client that keeps the catalogue learns of changes for a hundred bytes.
        """
        body = orjson.dumps(model_list(self._endpoint.engine.models(), self._started_at))
        etag = _etag(body)
        asked = request.if_none_match or ()
        if any(known.value in (etag, "*") for known in asked):
            response = web.Response(status=304)
        else:
            response = web.Response(body=body, content_type="application/json")
        response.etag = etag
        return response

    async def retrieve(self, request: web.Request) -> web.Response:
        """One model as SDKs know it; 404 ``model_not_found`` when it is not served here."""
        name = request.match_info["id"]
        models = self._endpoint.engine.models()
        for model in models:
            if model.name == name:
                body = orjson.dumps(_sdk_entry(model, self._started_at))
                return web.Response(body=body, content_type="application/json")
        served = ", ".join(model.name for model in models)
        raise ApiError(
            f"unknown model {name[:200]!r}; this server has {served}",
            status=404,
            code="model_not_found",
            param="model",
        )


def model_list(models: Sequence[ModelInfo], created_at: int) -> dict[str, Any]:
    """The listing. ``created_at`` is in seconds since 1970."""
    return {
        "object": "list",
        "data": [_sdk_entry(model, created_at) for model in models],
        "models": [_codex_entry(model, n) for n, model in enumerate(models, 1)],
    }


def _etag(body: bytes) -> str:
    return hashlib.blake2b(body, digest_size=12).hexdigest()


def _sdk_entry(model: ModelInfo, created_at: int) -> dict[str, Any]:
    entry = {"id": model.name, "object": "model", "created": created_at, "owned_by": "tightloop"}
    return {**entry, "capabilities": [PREFILL]} if model.prefills_early else entry


def _codex_entry(model: ModelInfo, priority: int) -> dict[str, Any]:
    return {
        "slug": model.name,
        "display_name": model.name,
        "description": model.description,
        "supported_reasoning_levels": [],
        "shell_type": "shell_command",
        "visibility": "list",
        "supported_in_api": True,
        "priority": priority,
        "base_instructions": BASE_INSTRUCTIONS,
        "supports_reasoning_summaries": False,
        "support_verbosity": False,
        "apply_patch_tool_type": "freeform",
        "truncation_policy": {"mode": "bytes", "limit": OUTPUT_LIMIT_BYTES},
        # Tools are sent once instead of with every request, and an Esc or a new message stops the
        # running response at once (response.interrupt) instead of waiting for its end.
        "use_responses_lite": True,
        "supports_parallel_tool_calls": True,  # for clients that read it without the line above
        "supports_search_tool": False,
        "experimental_supported_tools": [],
        "input_modalities": ["text", "image"] if model.reads_images else ["text"],
        "context_window": model.context_window or DEFAULT_CONTEXT_WINDOW,
    }
