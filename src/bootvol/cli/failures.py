"""The error that ends a command early."""

from __future__ import annotations

from typing import Final

FAILED: Final = 1
NOT_ALLOWED: Final = 3
NOT_FOUND: Final = 4
UNREACHABLE: Final = 5
#: The exit code that shells use for a command that Ctrl-C ended.
INTERRUPTED: Final = 130

#: HTTP statuses with an exit code of their own. All others are plain failures.
OF_STATUS: Final = {401: NOT_ALLOWED, 403: NOT_ALLOWED, 404: NOT_FOUND}
#: The status for an invalid or expired token.
UNAUTHORIZED: Final = 401
#: Statuses of a service or a proxy during an outage.
_PASSING: Final = frozenset({502, 503, 504})


class CommandFailed(Exception):
    """The command has failed.

    :param message: one line for a person.
    :param exit_code: one of this module's exit codes.
    :param status: the HTTP status of the service's answer; 0 without an answer.
    :param retry_after: seconds to wait before a retry, as the service asks; 0 without a request.
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
        """True if the same call may succeed later."""
        return self.exit_code == UNREACHABLE or self.status in _PASSING or self.retry_after > 0
