"""The root of the error tree, and the stored form of an error."""

from __future__ import annotations

import re
from typing import ClassVar, Final

import attrs

#: Maximum number of characters of a message.  Messages repeat texts of servers and programs, which
#: attackers may write.
LONGEST: Final = 1000


@attrs.frozen
class ErrorReport:
    """An error as stored and shown.  See :class:`BootvolError` for the fields."""

    code: str
    message: str
    retryable: bool
    remedy: str


class BootvolError(Exception):
    """The root of all errors that bootvol raises on purpose.

    :param message: one sentence for the caller; the default is the message of the class.
    """

    code: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = True
    remedy: ClassVar[str] = (
        "Try again later. If the error persists, ask the operator to read the log."
    )
    default_message: ClassVar[str] = "Server Error, please try again later."

    def __init__(self, message: str | None = None) -> None:
        self.message = self.worded(message or self.default_message)
        super().__init__(self.message)

    @classmethod
    def worded(cls, text: str) -> str:
        """Return a text as the message of an error, with one full stop: see :func:`readable`."""
        # Texts of libraries at the end of a message may have a full stop of their own.
        return readable(re.sub(r"(?<!\.)\.\.$", ".", text))

    def report(self) -> ErrorReport:
        """Return the stored form of this error."""
        return ErrorReport(self.code, self.message, self.retryable, self.remedy)


def without_query(reference: str) -> str:
    """Return the id of an image, or a reference to one, for the log and for other people.

    The query of a URL may be a signature, which gives access to the image.
    """
    place, mark, _ = reference.partition("?")
    return f"{place}?…" if mark and "://" in place else reference


def readable(text: str) -> str:
    """Return a text in one line of at most :data:`LONGEST` characters, safe for a terminal."""
    if len(text) > LONGEST:
        text = f"{text[: LONGEST - 1]}…"
    if text.isprintable():
        return text
    escaped = "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode("ascii")
        for each in text
    )
    return readable(escaped)
