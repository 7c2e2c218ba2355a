"""Microversions: minor versions of the API, which a client chooses for each request by a header.

The rules are Cinder's (docs/block-storage.md).
"""

from __future__ import annotations

import re
from typing import Final

import attrs
from twisted.web.iweb import IRequest

from bootvol.api.cinder.words import MALFORMED
from bootvol.errors import ApiVersionUnsupported, InvalidRequest

#: The request header with the microversion, and the header of the answer.
HEADER: Final = b"OpenStack-API-Version"
#: A part of the service's name, as in Cinder: gophercloud calls the service `volumev3`.
_SERVICE: Final = "volume"


@attrs.frozen(order=True)
class Microversion:
    """A microversion, such as 3.60."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


LOWEST: Final = Microversion(3, 0)
#: The API serves no later call or member than those of this microversion.
HIGHEST: Final = Microversion(3, 71)


def of_request(request: IRequest) -> Microversion:
    """Return the microversion that a request asks for: see :func:`asked`."""
    sent = request.getHeader(HEADER)
    return asked(None if sent is None else sent.decode("utf-8", "replace"))


def asked(header: str | None) -> Microversion:
    """Return the microversion that a request asks for.

    :param header: the value of the header: versions of several services, with commas between.
    :raises InvalidRequest: if the header names no version of this service, or a malformed one.
    :raises ApiVersionUnsupported: if the API does not have the microversion.
    """
    if header is None:
        return LOWEST
    found = [each.split() for each in header.split(",")]
    mine = [each[1] for each in found if len(each) == 2 and _SERVICE in each[0].lower()]
    if not mine:
        raise InvalidRequest(MALFORMED)
    text = mine[0]
    if text == "latest":
        return HIGHEST
    match = re.fullmatch("([1-9][0-9]{0,5})[.](0|[1-9][0-9]{0,5})", text)
    if match is None:
        raise InvalidRequest(
            f"API Version String {text[:20]} is of invalid format."
            " Must be of format MajorNum.MinorNum."
        )
    version = Microversion(int(match[1]), int(match[2]))
    if not LOWEST <= version <= HIGHEST:
        raise ApiVersionUnsupported(str(version), str(LOWEST), str(HIGHEST))
    return version
