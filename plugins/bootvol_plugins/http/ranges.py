"""Range requests: headers for the rest of an image, checks of answers (RFC 9110, section 14)."""

from __future__ import annotations

import re
from email.utils import mktime_tz, parsedate_tz
from typing import Final

import attrs
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IResponse

_CONTENT_RANGE: Final = re.compile(
    r"bytes[ =]\s*(\d{1,18})\s*-\s*(\d{1,18})\s*/\s*(\d{1,18}|\*)", re.IGNORECASE
)
_UNSATISFIED: Final = re.compile(r"bytes[ =]\s*\*/(\d{1,18})", re.IGNORECASE)
_STRONG_ETAG: Final = re.compile(r'"[\x21\x23-\x7e]{0,250}"')
#: Seconds without a change until the date of an image counts as a strong validator.
_SETTLED: Final = 60.0
_NEVER: Final = float("inf")
#: Statuses of temporary refusals.
_PASSING: Final = frozenset({408, 425, 429})
#: Longest wait in seconds that a server may demand. Otherwise a server could hold a volume in
#: `downloading`, and the memory of the import, for years.
_LONGEST: Final = 300.0


def validator_of(response: IResponse) -> str | None:
    """Return the validator of an image: a strong ETag, or the date of its last change.

    A date is strong if the image had not changed for a while before the answer (section 8.8.2.2),
    because an image may change twice within one second.
    """
    etag = _header(response, b"etag")
    if _STRONG_ETAG.fullmatch(etag):
        return etag
    changed, answered = _header(response, b"last-modified"), _header(response, b"date")
    if not (changed.isascii() and changed.isprintable()):
        # Dates have no such characters (section 5.6.7), and requests cannot repeat them.
        return None
    if (_seconds(changed) or _NEVER) + _SETTLED <= (_seconds(answered) or 0.0):
        return changed
    return None


@attrs.frozen
class Part:
    """The part of an image in an answer.

    :ivar start: offset of the first byte in the image.
    :ivar end: offset behind the last byte.
    :ivar size: size of the whole image in bytes; None if the server does not state the size.
    """

    start: int
    end: int
    size: int | None

    @property
    def is_all(self) -> bool:
        """True if the part is certainly the whole image."""
        return self.start == 0 and self.end == self.size


def rest(offset: int, validator: str | None = None) -> Headers:
    """Return the headers of a request for the bytes from ``offset`` on.

    :param validator: requests the rest only if the image still has this validator.
    """
    headers = Headers({"Range": [f"bytes={offset}-"]})
    if validator is not None:
        headers.setRawHeaders("If-Range", [validator])
    return headers


def part_of(response: IResponse) -> Part | None:
    """Return the part of an image in an answer; None if the answer has no valid single part.

    A part is invalid if its end lies before its start or behind the image, or if its length differs
    from the answer's length.  As in curl, the header counts with any success status.
    """
    found = _CONTENT_RANGE.fullmatch(_header(response, b"content-range").strip())
    if not 200 <= response.code < 300 or found is None:
        return None
    start, end = int(found[1]), int(found[2]) + 1
    size = None if found[3] == "*" else int(found[3])
    possible = start < end and (size is None or end <= size)
    fits = response.length in (UNKNOWN_LENGTH, end - start)
    return Part(start, end, size) if possible and fits else None


def is_at_end(response: IResponse, offset: int) -> bool:
    """Tell whether an answer states that the image ends exactly at ``offset``."""
    found = _UNSATISFIED.fullmatch(_header(response, b"content-range").strip())
    return response.code == 416 and found is not None and int(found[1]) == offset


def states_ranges(response: IResponse) -> bool:
    """Tell whether a server announces support for ranges."""
    return "bytes" in _header(response, b"accept-ranges").lower()


def size_from(response: IResponse, offset: int) -> int | None:
    """Return the size of the whole image in bytes, if an answer has the rest of the image.

    :param offset: the required start of the rest.
    :returns: None if the answer is not the rest from ``offset`` to the end.
    """
    part = part_of(response)
    if part is None or part.start != offset or part.end != part.size:
        return None
    return part.size


def may_pass(status: int) -> bool:
    """Return whether a retry may succeed after an answer with this status."""
    return status in _PASSING or status >= 500


def retry_after(response: IResponse, now: float) -> float:
    """Return the seconds until a retry that a server demands (RFC 9110, section 10.2.3).

    :param now: seconds since 1970.
    """
    value = _header(response, b"retry-after").strip()
    if value.isascii() and value.isdigit():
        return min(float(value[:9]), _LONGEST)
    date = _seconds(value)
    return min(max(0.0, date - now), _LONGEST) if date is not None else 0.0


def _seconds(date: str) -> float | None:
    """Return an HTTP date as seconds since 1970; None if the date is invalid."""
    parts = parsedate_tz(date)
    try:
        return mktime_tz(parts) if parts else None
    except (ValueError, OverflowError):
        return None


def _header(response: IResponse, name: bytes) -> str:
    values = response.headers.getRawHeaders(name) or [b""]
    return str(values[0], "latin-1")
