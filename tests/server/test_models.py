"""The model listing serves SDKs and Codex in one answer."""

from tightloop.engine.interface import ModelInfo
from tightloop.server.models import model_list


def test_both_audiences_find_their_list() -> None:
    """SDKs read data; Codex reads models and needs the patch tool's form and a window."""
    listing = model_list([ModelInfo("m", "tiny", 4096), ModelInfo("n")], created_at=7)
    assert [entry["id"] for entry in listing["data"]] == ["m", "n"]
    assert listing["data"][0] == {
        "id": "m",
        "object": "model",
        "created": 7,
        "owned_by": "tightloop",
    }
    assert [entry["context_window"] for entry in listing["models"]] == [4096, 32768]
    assert {entry["apply_patch_tool_type"] for entry in listing["models"]} == {"freeform"}
