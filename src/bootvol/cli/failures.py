"""What ends a command early."""

from __future__ import annotations

from typing import Final

FAILED: Final = 1
NOT_ALLOWED: Final = 3
NOT_FOUND: Final = 4
UNREACHABLE: Final = 5

#: HTTP statuses that scripts tell apart; every other one is a plain failure.
OF_STATUS: Final = {401: NOT_ALLOWED, 403: NOT_ALLOWED, 404: NOT_FOUND}
#: The status that says that a token is not valid, or not any more.
UNAUTHORIZED: Final = 401
#: Statuses of a service, or of what stands before one, that is not there for now.
_PASSING: Final = frozenset({502, 503, 504})


class CommandFailed(Exception):
    """The command cannot be carried out.

    :param message: one line for a person.
    :param exit_code: one of this module's.
    :param status: the HTTP status of the service's answer; 0 without one.
    :param retry_after: seconds after which the service wants to be asked again; 0 if it says none.
    """

    def __init__(
        self, message: str, exit_code: int = FAILED, status: int = 0, retry_after: float = 0.0
    ) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.status = status
        self.retry_after = retry_after

    @property
    def passing(self) -> bool:
        """Whether the same call may succeed in a while."""
        return self.exit_code == UNREACHABLE or self.status in _PASSING or self.retry_after > 0
