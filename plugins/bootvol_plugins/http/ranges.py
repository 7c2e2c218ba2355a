"""Asking for the rest of an image, and reading whether that is what came (RFC 9110, section 14)."""

from __future__ import annotations

import re
import time
from email.utils import mktime_tz, parsedate_tz
from typing import Final

from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse

_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")
#: The longest that a server is obeyed when it asks to be left alone, in seconds.
_LONGEST: Final = 3600.0


def validator_of(response: IResponse) -> str | None:
    """Return what tells this image from another at the same place: a strong ETag, or its date."""
    etag = _header(response, b"etag")
    if etag.startswith('"'):
        return etag
    return _header(response, b"last-modified") or None


def rest(offset: int, validator: str) -> Headers:
    """Return the headers that ask for what follows ``offset``, if the image is still the same."""
    return Headers({"Range": [f"bytes={offset}-"], "If-Range": [validator]})


def size_of_rest(response: IResponse, offset: int, validator: str) -> int | None:
    """Return the whole image's size in bytes if this answer is its rest, None if it is not."""
    found = _CONTENT_RANGE.fullmatch(_header(response, b"content-range"))
    if response.code != 206 or found is None or validator_of(response) != validator:
        return None
    start, last, size = map(int, found.groups())
    return size if start == offset and last == size - 1 else None


def retry_after(response: IResponse) -> float:
    """Return how many seconds a server asks to be left alone for (RFC 9110, section 10.2.3)."""
    value = _header(response, b"retry-after").strip()
    if value.isascii() and value.isdigit():
        return min(float(value[:9]), _LONGEST)
    date = parsedate_tz(value)
    return min(max(0.0, mktime_tz(date) - time.time()), _LONGEST) if date else 0.0


def _header(response: IResponse, name: bytes) -> str:
    values = response.headers.getRawHeaders(name) or [b""]
    return str(values[0], "latin-1")
