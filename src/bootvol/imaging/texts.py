"""Recognizes texts: servers send pages and messages instead of the requested image."""

from __future__ import annotations

import codecs
import string
from typing import Final

#: The first characters of documents that servers send instead of the requested file.  A mark of the
#: encoding may come before.
_DOCUMENTS: Final = {
    "<": "an HTML or XML page",
    "{": "a JSON document",
    "[": "a JSON document",
}
#: Marks of an encoding (Unicode Standard, section 23.8).  The mark of UTF-32 begins like another.
_MARKS: Final = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
#: Number of first bytes to search for characters that no document has.
_SECTOR: Final = 512
#: Characters that no text has.  Escape begins a colour of a terminal.
_NOT_TEXT: Final = {chr(each) for each in (*range(32), 127)} - {*string.whitespace, "\x1b"}
#: The end of a text in DOS.
_END: Final = "\x1a"
#: The fewest bytes that show UTF-16 without a mark.
_LEAST: Final = 16
#: In a text of an unknown encoding, fewer than one of so many bytes are no ASCII characters.
_STRANGE: Final = 4


def kind_of_text(head: bytes, *, whole: bool) -> str | None:
    """Return the kind of a text for people; None if the image is no text.

    :param head: the first bytes of an image.
    :param whole: whether the image has no more bytes.
    """
    encoding = _encoding(head)
    first = _text(head[:_SECTOR], encoding or "latin-1", whole=False)
    if first is None or _NOT_TEXT.intersection(first.rstrip(_END)):
        return None
    for start, name in _DOCUMENTS.items():
        if first.lstrip().startswith(start):
            return name
    text = _text(head, encoding or "utf-8", whole=whole)
    if text is None and encoding is None and _is_mostly_ascii(head):
        text = head.decode("latin-1")
    if text is None or _NOT_TEXT.intersection(text.rstrip(_END)):
        return None
    return "nothing but a text"


def _encoding(head: bytes) -> str | None:
    """Return the encoding of a text with a mark, or of a text of ASCII characters in UTF-16."""
    for mark, encoding in _MARKS.items():
        if head.startswith(mark):
            return encoding
    first = head[:_SECTOR]
    if len(first) < _LEAST or len(first) % 2:
        return None
    if not any(first[1::2]) and all(first[::2]):
        return "utf-16-le"
    if not any(first[::2]) and all(first[1::2]):
        return "utf-16-be"
    return None


def _text(data: bytes, encoding: str, *, whole: bool) -> str | None:
    """Return decoded bytes without the mark; None if the bytes are not in this encoding.

    :param whole: whether the last character is complete.
    """
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(data, final=whole)
    except UnicodeDecodeError:
        return None
    return text.removeprefix("\ufeff")


def _is_mostly_ascii(head: bytes) -> bool:
    return _STRANGE * sum(each > 127 for each in head) < len(head)
