"""Errors in Cinder's form: one key for the kind of fault, with code and message."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from bootvol.api import admission, statuses
from bootvol.api.faults import TITLED_FAULTS
from bootvol.api.http import Faults, seconds_until_retry
from bootvol.api.openapi import exactly
from bootvol.api.operations import Operation
from bootvol.errors import BootvolError, MissingEntity, QuotaExceeded, UnsupportedContentType
from bootvol.jsons import JsonObject

#: The keys by HTTP status.
_KEYS: Final = {
    400: "badRequest",
    401: "unauthorized",
    403: "forbidden",
    404: "itemNotFound",
    405: "badMethod",
    409: "conflictingRequest",
    413: "overLimit",
    415: "badMediaType",
    501: "notImplemented",
    503: "serviceUnavailable",
}
_OTHER: Final = "computeFault"


def _status(error: BootvolError) -> int:
    if isinstance(error, UnsupportedContentType):
        return 415
    # Cinder has no 422.
    return 400 if isinstance(error, MissingEntity) else statuses.status_of(error)


def _fault(error: BootvolError, status: int) -> object:
    if status == HTTPStatus.UNAUTHORIZED:
        # Cinder leaves authentication to a part of Keystone, which has Keystone's form.
        return TITLED_FAULTS.body(error, status)
    content: JsonObject = {"code": status, "message": error.message}
    if isinstance(error, QuotaExceeded):
        content["retryAfter"] = "0"
    return {_KEYS.get(status, _OTHER): content}


def _schema(status: int) -> JsonObject:
    if status == HTTPStatus.UNAUTHORIZED:
        return TITLED_FAULTS.schema(status)
    inner = exactly({"code": {"const": status}, "message": {"type": "string"}})
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        # Only faults of quotas have this member.
        inner["properties"]["retryAfter"] = {"type": "string"}
    return exactly({_KEYS.get(status, _OTHER): inner})


def _retry_after(error: BootvolError) -> bytes | None:
    # Nobody knows when a quota will have room.
    return b"0" if isinstance(error, QuotaExceeded) else seconds_until_retry(error)


#: The form of errors in Cinder's dialect.
CINDER_FAULTS: Final = Faults(_fault, _schema, _status, retry_after=_retry_after)


def refusals(operation: Operation) -> frozenset[int]:
    """Return the statuses of an operation's possible failures."""
    return admission.refusals(operation) | {406} | ({415} if operation.body else set())
