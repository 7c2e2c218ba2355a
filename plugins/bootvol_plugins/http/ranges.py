"""Asking for the rest of an image, and reading whether that is what came (RFC 9110, section 14)."""

from __future__ import annotations

import re
from email.utils import mktime_tz, parsedate_tz
from typing import Final

from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse

_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")
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
    if (_seconds(changed) or _NEVER) + _SETTLED <= (_seconds(answered) or 0.0):
        return changed
    return None


def rest(offset: int, validator: str) -> Headers:
    """Return the headers that ask for what follows ``offset``, if the image is still the same."""
    return Headers({"Range": [f"bytes={offset}-"], "If-Range": [validator]})


def size_of_rest(response: IResponse, offset: int, validator: str) -> int | None:
    """Return the whole image's size in bytes if this answer is its rest, None if it is not."""
    return size_from(response, offset) if validator_of(response) == validator else None


def size_from(response: IResponse, offset: int) -> int | None:
    """Return the whole size in bytes of what this answer is the rest of; None if it is none.

    :param offset: where the rest has to begin.
    """
    found = _CONTENT_RANGE.fullmatch(_header(response, b"content-range"))
    if response.code != 206 or found is None:
        return None
    start, last, size = map(int, found.groups())
    return size if start == offset and last == size - 1 else None


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
