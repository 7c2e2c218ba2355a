"""Timeouts for disks at the start of the daemon.

A call to a hanging disk may never return.  If the daemon cannot do without that disk, the start
then ends with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from bootvol import plugins
from bootvol.checks import Mistake
from bootvol.errors import ConfigurationError
from bootvol.threads import StillRunning, within

T = TypeVar("T")


def in_time(key: str, value: object, call: Callable[[], T]) -> T:
    """Return the result of a blocking call.

    :param key: the setting that names the disk, for the message.
    :param value: the value of the setting; never a secret.
    :raises ConfigurationError: if the call has not returned in time.
    """
    try:
        return within(plugins.PATIENCE, call)
    except StillRunning:
        raise ConfigurationError(str(_hanging(key, value))) from None


def found_in_time(
    key: str, value: object, check: Callable[[], Iterable[T]], *, fatal: bool = True
) -> list[T | Mistake]:
    """Return the findings of a blocking check.

    A hanging disk, and a path that the system does not accept, become findings here.

    :param key: see :func:`in_time`.
    :param value: see :func:`in_time`.
    :param fatal: whether the daemon cannot do without the disk.
    """
    try:
        return within(plugins.PATIENCE, lambda: list(check()))
    except StillRunning:
        return [_hanging(key, value, fatal=fatal)]
    except OSError as error:
        # For example, a name is too long.  No check has to look for such errors itself.
        place = f"{error.filename}: " if error.filename is not None else ""
        fault = f"this cannot be looked at: {place}{error.strerror or error}"
        remedy = "Repair the disk, or name another path."
        if isinstance(error, PermissionError):
            remedy = "Give the daemon's user the right to look there, or name another path."
        return [Mistake(key, value, fault, remedy, fatal)]


def _hanging(key: str, value: object, *, fatal: bool = True) -> Mistake:
    fault = f"no answer after {plugins.PATIENCE:.0f} s: a disk or a service hangs"
    remedy = "Check the disk, the mount or the service behind the path."
    return Mistake(key, value, fault, remedy, fatal)
