"""Heads of answers as servers send them, in the form that Twisted's parser takes."""

from __future__ import annotations

import re
from typing import Final

#: The longest head of an answer, in bytes and in lines.
LONGEST: Final = 256 * 1024
MOST_LINES: Final = 2_000
#: The longest line that Twisted takes; no header that matters here is longer.
_LONGEST_LINE: Final = 16 * 1024 - 2

_END: Final = re.compile(rb"\r?\n\r?\n")
_STATUS: Final = re.compile(rb"(HTTP)/[0-9.]+( +[0-9]{3}.*)", re.IGNORECASE)
#: The name of a header (RFC 9110, section 5.6.2).
_NAME: Final = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_OLD: Final = b"HTTP/1.0"


class HeadTooLong(Exception):
    """A head has more bytes or lines than are taken."""


def end_of(head: bytes | bytearray) -> int | None:
    """Return where a head ends, behind its empty line; None if it goes on.

    What does not begin as an answer does is no head: it ends at once.

    :raises HeadTooLong: it is.
    """
    if not b"HTTP/".startswith(head[:5].upper()):
        return 0
    found = _END.search(head)
    end = len(head) if found is None else found.end()
    if end > LONGEST or head.count(b"\n", 0, end) > MOST_LINES:
        raise HeadTooLong
    return None if found is None else end


def is_interim(head: bytes | bytearray) -> bool:
    """Tell whether another head follows (RFC 9110, section 15.2)."""
    return re.match(rb"HTTP/[0-9.]+ +1[0-9]{2}\b", head, re.IGNORECASE) is not None


def as_parsed(head: bytes) -> list[bytes]:
    """Return the lines of a head as Twisted's parser takes them, the empty one included.

    Of a later version of HTTP it takes none, nor spaces before a colon, nor ``identity`` as a
    transfer encoding (RFC 2616, section 3.6), all of which servers send.  Headers of more than
    16 KiB are left out, and those whose name is none.
    """
    status, *lines = head.replace(b"\r\n", b"\n").rstrip(b"\n").split(b"\n")
    found = _STATUS.fullmatch(status)
    if found is not None and not status.upper().startswith(_OLD):
        status = b"HTTP/1.1" + found[2]
    kept = [status]
    for line in lines:
        if line[:1] in {b" ", b"\t"} and len(kept) > 1:
            # Folded (RFC 9112, section 5.2).
            kept[-1] += b" " + line.strip()
            continue
        name, colon, value = line.partition(b":")
        kept.append(name.rstrip() + colon + value)
    taken = [kept[0], *filter(_is_taken, kept[1:])]
    return [*(line + b"\r\n" for line in taken), b"\r\n"]


def _is_taken(line: bytes) -> bool:
    name, colon, value = line.partition(b":")
    if colon and _NAME.fullmatch(name) is None:
        return False
    if name.lower() == b"transfer-encoding" and value.strip().lower() == b"identity":
        return False
    return len(line) <= _LONGEST_LINE
