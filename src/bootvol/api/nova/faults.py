"""Errors in Nova's form: one key for the kind of fault, with message and code.

The keys are HP's keys of 2012 (specification, section 2.5).
"""

from __future__ import annotations

from typing import Any, Final

from bootvol.errors import BootvolError, RateLimited

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


def fault(error: BootvolError) -> dict[str, Any]:
    """Return the JSON object that reports ``error`` to a client."""
    content: dict[str, Any] = {"message": error.message, "code": error.status}
    if isinstance(error, RateLimited):
        content |= {"details": error.details, "retryAfter": error.retry_after}
    elif error.status == 413:
        content["retryAfter"] = 0
    return {FAULTS.get(error.status, FAULTS[500]): content}
