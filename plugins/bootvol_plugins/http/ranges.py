"""Range requests: headers for the rest of an image, checks of answers (RFC 9110, section 14)."""

from __future__ import annotations

import re
from email.utils import mktime_tz, parsedate_tz
from typing import Final

import attrs
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IResponse

from bootvol.model import Image

_CONTENT_RANGE: Final = re.compile(
    r"bytes[ =]\s*(\d{1,18})\s*-\s*(\d{1,18})\s*/\s*(\d{1,18}|\*)", re.IGNORECASE
)
_UNSATISFIED: Final = re.compile(r"bytes[ =]\s*\*/(\d{1,18})", re.IGNORECASE)
#: Some servers send an empty ETag with every file.
_STRONG_ETAG: Final = re.compile(r'"[\x21\x23-\x7e]{1,250}"')
#: Longest date in characters: the longest form of RFC 9110 has 33.  The database keeps the date.
_LONGEST_DATE: Final = 64
#: Seconds without a change until the date of an image counts as a strong validator.
_SETTLED: Final = 60.0
#: 1990, in seconds since 1970. Earlier dates are older than HTTP: some servers state one date for
#: each version of a file, such as the first second of 1970 (SOURCE_DATE_EPOCH, Nix) or 1980 (zip).
_FIRST: Final = 631_152_000.0
#: Success statuses without a file or with a part of a file.
_NOT_WHOLE: Final = frozenset({204, 205, 206})
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
    if not (changed.isascii() and changed.isprintable() and len(changed) <= _LONGEST_DATE):
        # Dates have no such characters (section 5.6.7), and requests cannot repeat them.
        return None
    at = _seconds(changed)
    if at is not None and _FIRST <= at <= (_seconds(answered) or 0.0) - _SETTLED:
        return changed
    return None


def comparable(validator: str | None, other: str | None) -> str | None:
    """Return a validator; None if it is an ETag and ``other`` a date, or the reverse.

    Two such validators do not show whether the image is the same.
    """
    if validator and other and validator.startswith('"') != other.startswith('"'):
        return None
    return validator


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


def rest(offset: int, validator: str | None = None) -> Headers:
    """Return the headers of a request for the bytes from ``offset`` on.

    :param validator: requests the rest only if the image still has this validator.
    """
    return _span(f"{offset}-", validator)


def span(offset: int, length: int, validator: str | None = None) -> Headers:
    """Return the headers of a request for ``length`` bytes from ``offset`` on.

    :param validator: requests the part only if the image still has this validator.
    """
    return _span(f"{offset}-{offset + length - 1}", validator)


def _span(span: str, validator: str | None) -> Headers:
    headers = Headers({"Range": [f"bytes={span}"]})
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


def is_whole(response: IResponse, size: int | None, *, ranged: bool) -> bool:
    """Tell whether an answer has a whole file, by curl's rules.

    :param size: known size of the file in bytes, or None.
    :param ranged: whether a part was requested.  An answer to another request has the whole file,
        even with the status of a part.
    """
    part = part_of(response)
    if part is not None:
        return part.start == 0 and part.end == (part.size or size)
    if response.code == 206:
        plain = not ranged and not response.headers.hasHeader(b"content-range")
        return plain or (size is not None and length_of(response) == size)
    return 200 <= response.code < 300 and response.code not in _NOT_WHOLE


def fitting(response: IResponse, image: Image, offset: int, *, ranged: bool) -> Part | None:
    """Return the part of an image in an answer; None if the rest from ``offset`` is not in it.

    :param ranged: whether a part was requested.
    """
    part = part_of(response)
    if part is None:
        whole = is_whole(response, image.size_bytes, ranged=ranged)
        return Part(0, 0, length_of(response)) if whole else None
    if part.size is None:
        # Without a size, only a digest shows that the part reaches the end.
        known = image.size_bytes is not None or image.digest is not None
        part = attrs.evolve(part, size=image.size_bytes) if known else None
    return part if part is not None and part.start <= offset else None


def length_of(response: IResponse) -> int | None:
    """Return the stated length of an answer's body in bytes; None if not stated."""
    return None if response.length is UNKNOWN_LENGTH else int(response.length)


def is_at_end(response: IResponse, offset: int) -> bool:
    """Tell whether an answer states that the image ends exactly at ``offset``."""
    found = _UNSATISFIED.fullmatch(_header(response, b"content-range").strip())
    return response.code == 416 and found is not None and int(found[1]) == offset


def states_ranges(response: IResponse) -> bool:
    """Tell whether a server announces support for ranges."""
    return "bytes" in _header(response, b"accept-ranges").lower()


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
