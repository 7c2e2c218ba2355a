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
    """

    resource: str
    limit: int
    used: int
    wanted: int


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
