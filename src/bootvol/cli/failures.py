"""What ends a command early."""

from __future__ import annotations

from typing import Final

FAILED: Final = 1
NOT_ALLOWED: Final = 3
NOT_FOUND: Final = 4
UNREACHABLE: Final = 5

#: HTTP statuses that scripts tell apart; every other one is a plain failure.
OF_STATUS: Final = {401: NOT_ALLOWED, 403: NOT_ALLOWED, 404: NOT_FOUND}


class CommandFailed(Exception):
    """The command cannot be carried out.

    :param message: one line for a person.
    :param exit_code: one of this module's.
    """

    def __init__(self, message: str, exit_code: int = FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code
