"""What ``GET /models`` of a server says of a model, in the forms that servers have for it."""

from collections.abc import Iterator
from typing import Any

_WINDOW_KEYS = ("context_window", "context_length", "max_model_len", "max_context_length", "n_ctx")


def reads_images(listed: Any, name: str) -> bool | None:
    """Whether the model can see; None when the list does not say.

    Known are ``input_modalities`` beside a model's ``slug`` (what Codex reads; ours), the same below
    ``architecture`` (OpenRouter) and ``capabilities.vision`` (Mistral). Sources: their API references.
    """
    for entry in _entries(listed):
        if name not in (entry.get("slug"), entry.get("id")):
            continue
        for holder in (entry, entry.get("architecture")):
            modalities = holder.get("input_modalities") if isinstance(holder, dict) else None
            if isinstance(modalities, list):
                return "image" in modalities
        capabilities = entry.get("capabilities")
        vision = capabilities.get("vision") if isinstance(capabilities, dict) else None
        if isinstance(vision, bool):
            return vision
    return None


def context_window(listed: Any, name: str) -> int | None:
    """How many tokens the model takes; None when the list does not say.

    Known are the keys of Codex's catalogue (ours too), OpenRouter, vLLM and llama.cpp, the last one
    below ``meta``. Sources: their API references and answers.
    """
    for entry in _entries(listed):
        if name not in (entry.get("slug"), entry.get("id")):
            continue
        for holder in (entry, entry.get("meta"), entry.get("top_provider")):
            known = holder if isinstance(holder, dict) else {}
            for key in _WINDOW_KEYS:
                value = known.get(key)
                if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                    return value
    return None


def _entries(listed: Any) -> Iterator[dict[str, Any]]:
    for key in ("models", "data"):
        entries = listed.get(key) if isinstance(listed, dict) else None
        if isinstance(entries, list):
            yield from (entry for entry in entries if isinstance(entry, dict))
