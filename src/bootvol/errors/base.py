"""The root of the error tree, and the stored form of an error."""

from __future__ import annotations

from typing import ClassVar

import attrs


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
        self.message = message or self.default_message
        super().__init__(self.message)

    def report(self) -> ErrorReport:
        """Return the stored form of this error."""
        return ErrorReport(self.code, self.message, self.retryable, self.remedy)
