"""The root of the tree, and how an error is kept."""

from __future__ import annotations

from typing import ClassVar

import attrs


@attrs.frozen
class ErrorReport:
    """An error as it is stored and shown; the fields mean what :class:`BootvolError` says."""

    code: str
    message: str
    retryable: bool
    remedy: str


class BootvolError(Exception):
    """The root: whatever bootvol itself knows to have gone wrong.

    :param message: one sentence for the person who asked; without it, the class's own.
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = True
    remedy: ClassVar[str] = "Try again later; if it goes on, ask the operator to read the log."
    default_message: ClassVar[str] = "Server Error, please try again later."

    def __init__(self, message: str | None = None) -> None:
        self.message = message or self.default_message
        super().__init__(self.message)

    def report(self) -> ErrorReport:
        """Return this error as the value that is stored with a volume."""
        return ErrorReport(self.code, self.message, self.retryable, self.remedy)
