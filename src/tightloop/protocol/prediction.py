"""``prediction`` of a request: text that the answer probably repeats, as in an edited file.

Source: API reference of Chat Completions, "Predicted Outputs". Here the Responses endpoint takes
the same value. It can only make an answer faster, so nothing else about it is checked.
"""

from tightloop.protocol.errors import ApiError


def decode_prediction(value: object) -> str | None:
    """The text of ``{"type": "content", "content": ...}``, given as a string or in text parts.

    None for none or an empty one. Raises ``ApiError`` 400 with a path.
    """
    if value is None:
        return None
    if not isinstance(value, dict) or value.get("type") != "content":
        raise _bad('prediction must be an object with the type "content"', "prediction")
    content = value.get("content")
    if isinstance(content, list):
        return (
            "".join(_text(part, f"prediction.content[{n}]") for n, part in enumerate(content))
            or None
        )
    if not isinstance(content, str):
        raise _bad("prediction.content must be a string or text parts", "prediction.content")
    return content or None


def _text(part: object, where: str) -> str:
    text = part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None
    if not isinstance(text, str):
        raise _bad(f'{where} must be {{"type": "text", "text": "..."}}', where)
    return text


def _bad(message: str, param: str) -> ApiError:
    return ApiError(message, code="invalid_value", param=param)
