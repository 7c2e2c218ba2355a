"""Errors in Nova's form: one key for the kind of fault, with message and code.

The keys are HP's keys of 2012 (specification, section 2.5).
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from bootvol.api import admission
from bootvol.api.http import Faults
from bootvol.api.openapi import COUNT, exactly
from bootvol.api.operations import Operation
from bootvol.errors import BootvolError, RateLimited
from bootvol.jsons import JsonObject

#: The keys by HTTP status.
FAULTS: Final = {
    400: "badRequest",
    401: "unauthorized",
    403: "resizeNotAllowed",
    404: "itemNotFound",
    405: "badMethod",
    409: "inProgress",
    413: "overLimit",
    415: "badMediaType",
    422: "cloudServersFault",
    500: "cloudServersFault",
    501: "notImplemented",
    503: "serviceUnavailable",
}


def fault(error: BootvolError, status: int) -> JsonObject:
    """Return the JSON object that reports an error with an HTTP status to a client."""
    content: JsonObject = {"message": error.message, "code": status}
    if isinstance(error, RateLimited):
        content |= {"details": error.details, "retryAfter": error.retry_after}
    elif status == 413:
        content["retryAfter"] = 0
    return {FAULTS.get(status, FAULTS[500]): content}


def _schema(status: int) -> JsonObject:
    content: JsonObject = {"message": {"type": "string"}, "code": {"const": status}}
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        content["retryAfter"] = COUNT
    inner = exactly(content)
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        # The details name the rate limit.
        inner["properties"]["details"] = {"type": "string"}
    return exactly({FAULTS[status]: inner})


#: The form of errors in Nova's dialect.
NOVA_FAULTS: Final = Faults(fault, _schema)


def refusals(operation: Operation) -> frozenset[int]:
    """Return the statuses of an operation's possible failures."""
    return admission.refusals(operation) | ({422} if operation.body is not None else set())
