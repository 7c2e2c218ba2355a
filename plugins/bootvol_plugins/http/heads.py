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
_STATUS: Final = re.compile(rb"(HTTP/[0-9.]+) +([0-9]{3}.*)", re.IGNORECASE)
#: The name of a header (RFC 9110, section 5.6.2).
_NAME: Final = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_OLD: Final = b"HTTP/1.0"
_TRANSFER: Final = b"transfer-encoding"
_NO_ENCODING: Final = frozenset({b"", b"identity"})


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

    Of a later version of HTTP it takes none, nor several spaces before a status, nor spaces before
    a colon, nor a list of transfer encodings, with ``identity`` in it (RFC 2616, section 3.6) or
    nothing, all of which servers send.  Headers of more than 16 KiB are left out, and those whose
    name is none.
    """
    status, *lines = head.replace(b"\r\n", b"\n").rstrip(b"\n").split(b"\n")
    found = _STATUS.fullmatch(status)
    if found is not None:
        old = found[1].upper() == _OLD
        status = b"%b %b" % (_OLD if old else b"HTTP/1.1", found[2])
    kept = [status]
    for line in lines:
        if line[:1] in {b" ", b"\t"} and len(kept) > 1:
            # Folded (RFC 9112, section 5.2).
            kept[-1] += b" " + line.strip()
            continue
        name, colon, value = line.partition(b":")
        kept.append(name.rstrip() + colon + value)
    taken = [kept[0], *filter(_is_taken, map(_with_encodings, kept[1:]))]
    return [*(line + b"\r\n" for line in taken), b"\r\n"]


def has_chunks(lines: list[bytes]) -> bool:
    """Tell whether the body that follows a head is in chunks.

    :param lines: as :func:`as_parsed` gives them.
    """
    return any(line.lower().split() == [_TRANSFER + b":", b"chunked"] for line in lines)


def _with_encodings(line: bytes) -> bytes:
    """Return a header, of transfer encodings only those that are some."""
    name, _, value = line.partition(b":")
    if name.lower() != _TRANSFER:
        return line
    named = [each.strip() for each in value.split(b",")]
    return name + b": " + b", ".join(each for each in named if each.lower() not in _NO_ENCODING)


def _is_taken(line: bytes) -> bool:
    name, colon, value = line.partition(b":")
    if colon and _NAME.fullmatch(name) is None:
        return False
    if name.lower() == _TRANSFER and not value.strip():
        return False
    return len(line) <= _LONGEST_LINE
