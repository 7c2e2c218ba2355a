"""Rate limits of tenants: Nova's leaky buckets, one for each limit and tenant."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Final

import attrs
from cachetools import LRUCache
from twisted.internet.interfaces import IReactorTime

from bootvol.buckets import Bucket
from bootvol.errors import RateLimited
from bootvol.tables import RateLimitTable

#: The units of limits, in seconds.
UNITS: Final[Mapping[str, int]] = {"SECOND": 1, "MINUTE": 60, "HOUR": 3600, "DAY": 86400}
#: Tenants to remember. Beyond that number, the tenant with the oldest last call is forgotten.
MOST_TENANTS: Final = 10_000
#: Tolerance for rounding errors, as a part of a unit.
_ROUNDING: Final = 1e-6


@attrs.frozen
class RateLimit:
    """A limit of ``value`` calls of one kind in each unit of time (specification, section 2.6).

    :ivar uri: the URI to show with the limit.
    :ivar regex: selects the calls. ``re.match`` applies the pattern to the path below the tenant's
        base URI, alone and with the query (``/os-volumes``, ``/os-volumes?limit=1``).
    :ivar unit: one of :data:`UNITS`.
    """

    verb: str
    uri: str
    regex: re.Pattern[str]
    value: int
    unit: str

    @property
    def seconds(self) -> int:
        """The unit in seconds: a bucket's capacity, since a bucket leaks one second each second."""
        return UNITS[self.unit]

    @property
    def cost(self) -> float:
        """The amount that a call adds to a bucket, in seconds."""
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
    """A tenant's state under one limit.

    :ivar remaining: how many calls the limit would accept now.
    :ivar wait: seconds until the limit accepts the next call.
    """

    limit: RateLimit
    remaining: int
    wait: float


class _Counted:
    """The calls of one tenant under one limit."""

    def __init__(self, limit: RateLimit, clock: IReactorTime) -> None:
        self.limit = limit
        self._bucket = Bucket(limit.seconds, clock)

    def count(self) -> None:
        """Count a call."""
        self._bucket.add(self.limit.cost)

    @property
    def wait(self) -> float:
        """The seconds until the limit accepts a call; 0 if the limit accepts one now."""
        over = self._bucket.wait(self.limit.cost)
        return over if over > self.limit.cost * _ROUNDING else 0.0

    @property
    def state(self) -> Rate:
        """The tenant's state under the limit."""
        remaining = int(-self._bucket.wait() / self.limit.cost + _ROUNDING)
        return Rate(self.limit, remaining, self.wait)


class RateLimits:
    """A daemon's limits, with one bucket for each limit and tenant.

    :param clock: the reactor; buckets leak by its time.
    """

    def __init__(self, limits: Sequence[RateLimit], clock: IReactorTime) -> None:
        self._limits = limits
        self._clock = clock
        self._tenants: LRUCache[str, list[_Counted]] = LRUCache(MOST_TENANTS)

    @classmethod
    def configured(cls, tables: Sequence[RateLimitTable], clock: IReactorTime) -> RateLimits:
        """Return the limits that the configuration states."""
        limits = [
            RateLimit(each.verb, each.uri, re.compile(each.regex), each.value, each.unit)
            for each in tables
        ]
        return cls(limits, clock)

    def count(self, tenant: str, verb: str, query: str, *paths: str) -> None:
        """Count a call, or refuse it. A refused call is not counted.

        :param query: the query behind the path, without the question mark; may be empty.
        :param paths: the call's paths below the tenant's base URI. A call can have several paths; a
            limit for any of them counts the call.
        :raises RateLimited: if the tenant has called too often.
        """
        targets = [*paths, *(f"{path}?{query}" for path in paths)]
        meant = [
            each
            for each in self._of(tenant)
            if each.limit.verb == verb and any(map(each.limit.regex.match, targets))
        ]
        longest = max(meant, key=lambda each: each.wait, default=None)
        if longest is not None and longest.wait:
            raise RateLimited(longest.limit.text, math.ceil(longest.wait))
        for each in meant:
            each.count()

    def of(self, tenant: str) -> Sequence[Rate]:
        """Return a tenant's state under each limit, in the order of the configuration."""
        return [each.state for each in self._of(tenant)]

    def _of(self, tenant: str) -> Sequence[_Counted]:
        if tenant not in self._tenants:
            self._tenants[tenant] = [_Counted(limit, self._clock) for limit in self._limits]
        return self._tenants[tenant]
