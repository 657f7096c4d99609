"""``GET /v1/models`` for two audiences in one answer.

SDKs read ``data``; Codex reads ``models`` and offers its patch tool only for models in it.
Source of the entry's fields: what Codex 0.169 needs to start a turn with a working apply_patch.
"""

from collections.abc import Sequence
from typing import Any

from tightloop.engine.interface import ModelInfo

DEFAULT_CONTEXT_WINDOW = 32768


def model_list(models: Sequence[ModelInfo], created_at: int) -> dict[str, Any]:
    """The listing. ``created_at`` is in seconds since 1970."""
    return {
        "object": "list",
        "data": [_sdk_entry(model, created_at) for model in models],
        "models": [_codex_entry(model, n) for n, model in enumerate(models, 1)],
    }


def _sdk_entry(model: ModelInfo, created_at: int) -> dict[str, Any]:
    return {"id": model.name, "object": "model", "created": created_at, "owned_by": "tightloop"}


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
        "base_instructions": "You are a coding agent.",
        "supports_reasoning_summaries": False,
        "support_verbosity": False,
        "apply_patch_tool_type": "freeform",
        "truncation_policy": {"mode": "bytes", "limit": 10000},
        "supports_parallel_tool_calls": True,
        "experimental_supported_tools": [],
        "context_window": model.context_window or DEFAULT_CONTEXT_WINDOW,
    }
