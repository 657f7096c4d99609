"""The shape that the last message of a turn must have: asked of the server, and looked at afterwards."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from tightloop.harness.backend import UsageError

NAME = "final_message"
MAX_BYTES = 262_144
"""A server of ours takes no larger schema."""


class OutputSchema:
    """A JSON schema. Raises UsageError when it is none."""

    def __init__(self, schema: object) -> None:
        from jsonschema.exceptions import SchemaError  # type: ignore[import-untyped]
        from jsonschema.validators import validator_for  # type: ignore[import-untyped]
        from referencing import Registry

        if not isinstance(schema, Mapping):
            raise UsageError(f"the output schema must be a JSON object, got {_short(schema)}")
        self.schema = dict(schema)
        kind = validator_for(self.schema)
        try:
            kind.check_schema(self.schema)
        except SchemaError as error:
            raise UsageError(f"the output schema: {error.json_path}: {error.message}") from error
        registry: Registry[Any] = Registry()  # nothing is fetched for a reference
        self._validator = kind(self.schema, registry=registry)

    @property
    def request(self) -> dict[str, Any]:
        """The fields of a request that ask for it. ``strict``, as Codex asks for it: hosts that know
        only a part of JSON Schema in that mode refuse the rest by name."""
        shape = {"type": "json_schema", "name": NAME, "schema": self.schema, "strict": True}
        return {"text": {"format": shape}}

    def problem(self, text: str) -> str:
        """What is wrong with a message; empty when it fits."""
        from referencing.exceptions import Unresolvable

        try:
            value = msgspec.json.decode(text)
        except msgspec.DecodeError as error:
            return f"it is no JSON ({error}): {_short(text)}"
        try:
            found = next(iter(self._validator.iter_errors(value)), None)
        except Unresolvable as error:
            return f"the schema refers to something that is not in it: {error}"
        return "" if found is None else f"{found.json_path}: {_shortened(found.message)}"


def load_schema(path: Path) -> OutputSchema:
    """The schema in a file. Raises UsageError naming the file and what is wrong with it."""
    try:
        data = path.read_bytes()
        if len(data) > MAX_BYTES:
            raise UsageError(f"larger than {MAX_BYTES} bytes")
        return OutputSchema(msgspec.json.decode(data))
    except OSError as error:
        raise UsageError(f"--output-schema: cannot read {path}: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise UsageError(f"--output-schema: {path} is no JSON: {error}") from error
    except UsageError as error:
        raise UsageError(f"--output-schema: {path}: {error}") from error


def _short(value: object) -> str:
    return _shortened(repr(value))


def _shortened(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:196]} ..."
