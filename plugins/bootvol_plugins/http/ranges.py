"""Asking for the rest of an image, and reading whether that is what came (RFC 9110, section 14)."""

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
#: Seconds after which an image that has not changed is taken not to change within the same second.
_SETTLED: Final = 60.0
_NEVER: Final = float("inf")
#: Refusals that pass.
_PASSING: Final = frozenset({408, 425, 429})
#: The longest that a server is obeyed when it asks to be left alone, in seconds: what waits for it
#: keeps its place among the imports.
_LONGEST: Final = 300.0


def validator_of(response: IResponse) -> str | None:
    """Return what tells this image from another at the same place: a strong ETag, or its date.

    A date is strong when the image had not changed for a while by the time of the answer
    (section 8.8.2.2): one second may see two images.
    """
    etag = _header(response, b"etag")
    if _STRONG_ETAG.fullmatch(etag):
        return etag
    changed, answered = _header(response, b"last-modified"), _header(response, b"date")
    if not (changed.isascii() and changed.isprintable()):
        # No date has such characters (section 5.6.7), and no request could repeat them.
        return None
    if (_seconds(changed) or _NEVER) + _SETTLED <= (_seconds(answered) or 0.0):
        return changed
    return None


@attrs.frozen
class Part:
    """The part of an image that an answer has.

    :ivar start: where in the image it begins, in bytes.
    :ivar end: where it ends.
    :ivar size: of the whole image in bytes; None where the server does not say.
    """

    start: int
    end: int
    size: int | None

    @property
    def is_all(self) -> bool:
        """Whether it is known to be the whole image."""
        return self.start == 0 and self.end == self.size


def rest(offset: int, validator: str | None = None) -> Headers:
    """Return the headers that ask for what follows ``offset``.

    :param validator: the rest is wanted only if the image is still the one of this.
    """
    headers = Headers({"Range": [f"bytes={offset}-"]})
    if validator is not None:
        headers.setRawHeaders("If-Range", [validator])
    return headers


def part_of(response: IResponse) -> Part | None:
    """Return which part of an image an answer has; None if it is no answer with one part.

    What is not possible is no part: one that ends before it begins, or after the image, or of
    another length than the answer.  As for curl, the header counts with any code of success.
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
    """Tell whether an answer says that the image has exactly ``offset`` bytes, so none follow."""
    found = _UNSATISFIED.fullmatch(_header(response, b"content-range").strip())
    return response.code == 416 and found is not None and int(found[1]) == offset


def states_ranges(response: IResponse) -> bool:
    """Tell whether a server says that it sends parts."""
    return "bytes" in _header(response, b"accept-ranges").lower()


def size_from(response: IResponse, offset: int) -> int | None:
    """Return the whole size in bytes of what this answer is the rest of; None if it is none.

    :param offset: where the rest has to begin.
    """
    part = part_of(response)
    if part is None or part.start != offset or part.end != part.size:
        return None
    return part.size


def may_pass(status: int) -> bool:
    """Return whether another try may better an answer of this status."""
    return status in _PASSING or status >= 500


def retry_after(response: IResponse, now: float) -> float:
    """Return how many seconds a server asks to be left alone for (RFC 9110, section 10.2.3).

    :param now: seconds since 1970.
    """
    value = _header(response, b"retry-after").strip()
    if value.isascii() and value.isdigit():
        return min(float(value[:9]), _LONGEST)
    date = _seconds(value)
    return min(max(0.0, date - now), _LONGEST) if date is not None else 0.0


def _seconds(date: str) -> float | None:
    """Return an HTTP date as seconds since 1970, None if it is none."""
    parts = parsedate_tz(date)
    try:
        return mktime_tz(parts) if parts else None
    except (ValueError, OverflowError):
        return None


def _header(response: IResponse, name: bytes) -> str:
    values = response.headers.getRawHeaders(name) or [b""]
    return str(values[0], "latin-1")
