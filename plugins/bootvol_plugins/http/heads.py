"""Converter of the heads of real servers' answers to the form that Twisted's parser accepts."""

from __future__ import annotations

import re
from typing import Final

#: Longest head of an answer in bytes, and in lines.
LONGEST: Final = 256 * 1024
MOST_LINES: Final = 2_000
#: The headers that bootvol and Twisted read.  Twisted takes 15 microseconds for each header.
_NEEDED: Final = frozenset(
    [
        *(b"accept-ranges", b"connection", b"content-encoding", b"content-length"),
        *(b"content-range", b"content-type", b"date", b"etag", b"last-modified", b"location"),
        *(b"retry-after", b"transfer-encoding"),
    ]
)
#: Most lines that Twisted gets of one head.
MOST_TAKEN: Final = 100
#: Longest line that Twisted accepts. No relevant header is longer.
_LONGEST_LINE: Final = 16 * 1024 - 2

_END: Final = re.compile(rb"\r?\n\r?\n")
_STATUS: Final = re.compile(rb"(HTTP/[0-9.]+) +([0-9]{3}.*)", re.IGNORECASE)
_OLD: Final = b"HTTP/1.0"
_TRANSFER: Final = b"transfer-encoding"
_NO_ENCODING: Final = frozenset({b"", b"identity"})


#: A length in bytes.
_LENGTH: Final = re.compile(rb"[0-9]{1,100}")


class HeadTooLong(Exception):
    """A head has too many bytes or lines."""

    def __init__(self) -> None:
        super().__init__("the head of its answer is too long")


class WrongLength(ValueError):
    """A head states no possible length of its body."""


def end_of(head: bytes | bytearray) -> int | None:
    """Return the end of a head, behind its empty line; None if the head is incomplete.

    Bytes that do not begin like an answer are not a head: the result is 0.

    :raises HeadTooLong: if the head has too many bytes or lines.
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
    """Return the lines of a head for Twisted's parser, including the empty line.

    Real servers send forms that the parser refuses: later versions of HTTP, several spaces before a
    status, spaces before a colon, and lists of transfer encodings with ``identity`` (RFC 2616,
    section 3.6) or empty items.  These are converted.  Headers of more than 16 KiB and headers that
    nobody needs are left out.

    :raises HeadTooLong: if many lines are left.
    """
    status, *lines = head.replace(b"\r\n", b"\n").rstrip(b"\n").split(b"\n")
    found = _STATUS.fullmatch(status)
    if found is not None:
        old = found[1].upper() == _OLD
        status = b"%b %b" % (_OLD if old else b"HTTP/1.1", found[2])
    kept = [status]
    for line in lines:
        if line[:1] in {b" ", b"\t"} and len(kept) > 1:
            # A folded line (RFC 9112, section 5.2).
            kept[-1] += b" " + line.strip()
            continue
        name, colon, value = line.partition(b":")
        kept.append(name.rstrip() + colon + value)
    taken = [kept[0], *filter(_is_taken, map(_with_encodings, kept[1:]))]
    if len(taken) > MOST_TAKEN:
        raise HeadTooLong
    return [*(line + b"\r\n" for line in taken), b"\r\n"]


def has_chunks(lines: list[bytes]) -> bool:
    """Tell whether a head announces a chunked body.

    :param lines: the result of :func:`as_parsed`.
    """
    return any(line.lower().split() == [_TRANSFER + b":", b"chunked"] for line in lines)


def check_length(lines: list[bytes]) -> None:
    """Check the stated length of a body without a transfer encoding (RFC 9112, section 6.3).

    :param lines: the result of :func:`as_parsed`.
    :raises WrongLength: if the length is no number, has more than 100 digits, or contradicts
        itself.
    """
    if any(_value_of(line, _TRANSFER) for line in lines):
        return
    stated = [each for line in lines if (each := _value_of(line, b"content-length")) is not None]
    lengths = [each.strip() for line in stated for each in line.split(b",")]
    if not all(_LENGTH.fullmatch(each) for each in lengths):
        raise WrongLength("its Content-Length is no number of bytes")
    if len(set(map(int, lengths))) > 1:
        raise WrongLength("it states different lengths of the same body")


def _value_of(line: bytes, name: bytes) -> bytes | None:
    """Return the value of a header; None for another header."""
    found, _, value = line.partition(b":")
    return value if found.lower() == name else None


def _with_encodings(line: bytes) -> bytes:
    """Return a header; remove ``identity`` and empty items from transfer encodings."""
    name, _, value = line.partition(b":")
    if name.lower() != _TRANSFER:
        return line
    named = [each.strip() for each in value.split(b",")]
    return name + b": " + b", ".join(each for each in named if each.lower() not in _NO_ENCODING)


def _is_taken(line: bytes) -> bool:
    name, colon, value = line.partition(b":")
    if colon and name.lower() not in _NEEDED:
        return False
    if name.lower() == _TRANSFER and not value.strip():
        return False
    return len(line) <= _LONGEST_LINE
