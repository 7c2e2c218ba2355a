"""How often tenants may call: Nova's leaky buckets, one for each limit and tenant."""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Final

import attrs
from twisted.internet.interfaces import IReactorTime

from bootvol.errors import RateLimited
from bootvol.tables import RateLimitTable

#: The units of limits, in seconds.
UNITS: Final[Mapping[str, int]] = {"SECOND": 1, "MINUTE": 60, "HOUR": 3600, "DAY": 86400}
#: How many tenants are remembered; beyond that, the one that has not called for longest is not.
MOST_TENANTS: Final = 10_000
#: What rounding may make of a part of a unit.
_ROUNDING: Final = 1e-6


@attrs.frozen
class RateLimit:
    """So many calls of a kind are let through in a unit of time (reference, section 2.6).

    :ivar uri: what the limit is shown for.
    :ivar regex: which calls it is for: matched, as ``re.match`` does, with the path below the
        tenant's base URI, alone and with the query (``/os-volumes``, ``/os-volumes?limit=1``).
    :ivar unit: one of :data:`UNITS`.
    """

    verb: str
    uri: str
    regex: re.Pattern[str]
    value: int
    unit: str

    @property
    def seconds(self) -> int:
        """The unit in seconds: how much a bucket holds, since it leaks a second in a second."""
        return UNITS[self.unit]

    @property
    def cost(self) -> float:
        """What a call adds to a bucket, in seconds."""
        return self.seconds / self.value

    @property
    def text(self) -> str:
        """The limit in Nova's words."""
        return (
            f"Only {self.value} {self.verb} request(s) can be made to {self.uri}"
            f" every {self.unit.lower()}."
        )


@attrs.frozen
class Rate:
    """Where a tenant stands with a limit.

    :ivar remaining: how many calls would be let through now.
    :ivar wait: seconds until the next one is.
    """

    limit: RateLimit
    remaining: int
    wait: float


@attrs.define
class _Bucket:
    """A leaky bucket.

    :ivar level: of how much it is full, in seconds.
    :ivar seen: when it was that full.
    """

    limit: RateLimit
    seen: float
    level: float = 0.0

    def leak(self, now: float) -> None:
        """Let out what has leaked by now; a clock that was set back lets out nothing."""
        self.level = max(0.0, self.level - max(0.0, now - self.seen))
        self.seen = now

    @property
    def wait(self) -> float:
        """The seconds until a call fits, 0 if one does."""
        over = self.level + self.limit.cost - self.limit.seconds
        return over if over > self.limit.cost * _ROUNDING else 0.0


class RateLimits:
    """The limits of a daemon, with a bucket of each for every tenant.

    :param clock: the reactor; what leaks goes by it.
    """

    def __init__(self, limits: Sequence[RateLimit], clock: IReactorTime) -> None:
        self._limits = limits
        self._clock = clock
        self._tenants: OrderedDict[str, list[_Bucket]] = OrderedDict()

    @classmethod
    def configured(cls, tables: Sequence[RateLimitTable], clock: IReactorTime) -> RateLimits:
        """Return the limits that the configuration states."""
        limits = [
            RateLimit(each.verb, each.uri, re.compile(each.regex), each.value, each.unit)
            for each in tables
        ]
        return cls(limits, clock)

    def count(self, tenant: str, verb: str, query: str, *paths: str) -> None:
        """Count a call, or refuse it; one that is refused is not counted.

        :param query: behind the path, without its mark; may be empty.
        :param paths: below the tenant's base URI; where a call has several, a limit for any of
            them counts the call.
        :raises RateLimited: the tenant has called too often.
        """
        targets = [*paths, *(f"{path}?{query}" for path in paths)]
        meant = [
            bucket
            for bucket in self._buckets(tenant)
            if bucket.limit.verb == verb and any(map(bucket.limit.regex.match, targets))
        ]
        longest = max(meant, key=lambda bucket: bucket.wait, default=None)
        if longest is not None and longest.wait:
            raise RateLimited(longest.limit.text, math.ceil(longest.wait))
        for bucket in meant:
            bucket.level += bucket.limit.cost

    def of(self, tenant: str) -> Sequence[Rate]:
        """Return where a tenant stands, in the order of the configuration."""
        return [
            Rate(
                bucket.limit,
                int((bucket.limit.seconds - bucket.level) / bucket.limit.cost + _ROUNDING),
                bucket.wait,
            )
            for bucket in self._buckets(tenant)
        ]

    def _buckets(self, tenant: str) -> Sequence[_Bucket]:
        """Return a tenant's buckets as they are now."""
        now = self._clock.seconds()
        if tenant not in self._tenants:
            self._tenants[tenant] = [_Bucket(limit, now) for limit in self._limits]
        self._tenants.move_to_end(tenant)
        if len(self._tenants) > MOST_TENANTS:
            self._tenants.popitem(last=False)
        for bucket in self._tenants[tenant]:
            bucket.leak(now)
        return self._tenants[tenant]
