"""Log lines about work that a daemon repeats until the work succeeds."""

from __future__ import annotations

from twisted.logger import Logger, LogLevel


class Repeating:
    """Logs each failure once, and once that the work succeeds again.

    :param fails: the log line of a failure.
    :param succeeds: the log line of the first success after a failure.
    :param values: the values for the placeholders in both lines.
    """

    def __init__(self, log: Logger, fails: str, succeeds: str, **values: object) -> None:
        self._log = log
        self._fails = fails
        self._succeeds = succeeds
        self._values = values
        self._told: str | None = None

    def failed(self, error: Exception) -> None:
        """Log the error that is being handled, unless the last failure was the same one."""
        what = f"{type(error).__name__}: {error}"
        if self._told != what:
            self._told = what
            self._log.failure(self._fails, None, LogLevel.critical, **self._values)

    def succeeded(self) -> None:
        """Note a success."""
        if self._told is not None:
            self._told = None
            self._log.info(self._succeeds, **self._values)
