"""Waits for disks at the start of the daemon, and no longer than so long.

A call to a disk that hangs may never return.  The start then ends with the reason, where the daemon
cannot do without that disk.
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
    """Return what a call returns that blocks.

    :param key: the setting that names the disk, for the message.
    :param value: the value of the setting; never a secret.
    :raises ConfigurationError: the call has not returned in time.
    """
    try:
        return within(plugins.PATIENCE, call)
    except StillRunning:
        raise ConfigurationError(str(_hanging(key, value))) from None


def found_in_time(
    key: str, value: object, check: Callable[[], Iterable[T]], *, fatal: bool = True
) -> list[T | Mistake]:
    """Return what a check finds that blocks.

    A disk that hangs, and a path that the system does not take, are found here.

    :param key: see :func:`in_time`.
    :param value: see :func:`in_time`.
    :param fatal: whether the daemon cannot do without the disk.
    """
    try:
        return within(plugins.PATIENCE, lambda: list(check()))
    except StillRunning:
        return [_hanging(key, value, fatal=fatal)]
    except OSError as error:
        # A name that is too long, say: that much no check has to look for.
        place = f"{error.filename}: " if error.filename is not None else ""
        fault = f"this cannot be looked at: {place}{error.strerror or error}"
        return [Mistake(key, value, fault, "Name another path, or mend the disk.", fatal)]


def _hanging(key: str, value: object, *, fatal: bool = True) -> Mistake:
    fault = f"there is no answer after {plugins.PATIENCE:.0f} s: a disk or a service hangs"
    remedy = "Look at the disk, the mount or the service behind it."
    return Mistake(key, value, fault, remedy, fatal)
