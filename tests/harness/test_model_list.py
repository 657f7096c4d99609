"""Whether a model can see, by what its server lists."""

from typing import Any

import pytest

from tightloop.engine.interface import ModelInfo
from tightloop.harness.model_list import reads_images
from tightloop.server.models import model_list


@pytest.mark.parametrize(
    ("listed", "sees"),
    [
        (model_list([ModelInfo("m", reads_images=True)], 0), True),
        (model_list([ModelInfo("m")], 0), False),
        (model_list([ModelInfo("other", reads_images=True)], 0), None),
        ({"data": [{"id": "m", "architecture": {"input_modalities": ["text", "image"]}}]}, True),
        ({"data": [{"id": "m", "architecture": {"input_modalities": ["text"]}}]}, False),
        ({"data": [{"id": "m", "capabilities": {"vision": True}}]}, True),
        ({"data": [{"id": "m", "capabilities": ["vision"]}]}, None),
        ({"data": [{"id": "m"}]}, None),
        ({"data": "m", "models": [3]}, None),
        ([], None),
        (None, None),
    ],
)
def test_forms(listed: Any, sees: bool | None) -> None:
    assert reads_images(listed, "m") is sees
