"""Errors of quotas."""

from __future__ import annotations

import attrs

from bootvol.errors.base import BootvolError


@attrs.frozen
class Excess:
    """A request for more than a quota has left.

    :ivar resource: the limit's name: ``volumes``, ``gigabytes``, ``per_volume_gigabytes`` or
        ``snapshots``.
    :ivar limit: the limit.
    :ivar used: the present usage.
    :ivar wanted: the requested amount.
    :ivar of_type: the name of the volume type that the limit is for, empty for volumes without a
        type; None for a limit of all volumes.
    """

    resource: str
    limit: int
    used: int
    wanted: int
    of_type: str | None = None


class QuotaExceeded(BootvolError):
    """The tenant has used up its quota.

    :param excess: the numbers, for dialects that state them.
    """

    code = "quota-exceeded"
    retryable = False
    remedy = "Delete unneeded resources, or ask the operator for a higher quota."

    def __init__(self, message: str | None = None, excess: Excess | None = None) -> None:
        super().__init__(message)
        self.excess = excess
