"""Errors of the protocol.

::

    ProtocolError
    +-- LocalProtocolError    our own caller broke the contract (a bug on this side)
    +-- RemoteProtocolError   the peer sent what the protocol does not allow; becomes an ApiError
    +-- ApiError              a refusal with status, code and the field at fault, for the wire
"""

from typing import Any

import msgspec


class ProtocolError(Exception):
    """Root of all protocol errors."""


class LocalProtocolError(ProtocolError):
    """This side called something out of order."""


class ApiError(ProtocolError):
    """A refusal as the API words it.

    ``status`` is the HTTP status, ``error_type`` e.g. ``invalid_request_error``, ``code`` e.g.
    ``model_not_found``, ``param`` the path of the field at fault, ``retry_after_s`` a hint for 429.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        error_type: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.error_type = error_type
        self.code = code
        self.param = param
        self.retry_after_s = retry_after_s

    def body(self) -> dict[str, Any]:
        """The object under ``"error"`` in HTTP bodies and WebSocket error events."""
        return {
            "message": self.message,
            "type": self.error_type,
            "code": self.code,
            "param": self.param,
        }


class RemoteProtocolError(ProtocolError):
    """The peer sent bytes or an order of events that the protocol does not allow."""

    def __init__(self, message: str, *, status: int = 400, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.param = param

    def as_api_error(self) -> ApiError:
        """The refusal to answer with."""
        return ApiError(str(self), status=self.status, code="invalid_request", param=self.param)


class WireError(msgspec.Struct, frozen=True, omit_defaults=True):
    """The error object as a client reads it, from either wire shape."""

    message: str = ""
    type: str = ""
    code: str | None = None
    param: str | None = None
