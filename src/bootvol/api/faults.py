"""The form of errors of Keystone's API v3, which clients of other services understand, too."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from bootvol.api.http import Faults
from bootvol.api.openapi import exactly
from bootvol.errors import BootvolError
from bootvol.jsons import JsonObject


def _fault(error: BootvolError, status: int) -> JsonObject:
    title = HTTPStatus(status).phrase
    return {"error": {"code": status, "title": title, "message": error.message}}


def _schema(status: int) -> JsonObject:
    content = {
        "code": {"const": status},
        "title": {"const": HTTPStatus(status).phrase},
        "message": {"type": "string"},
    }
    return exactly({"error": exactly(content)})


#: Errors with a code, a title and a message.
TITLED_FAULTS: Final = Faults(_fault, _schema)
