"""How tenants share the places of a lane: who has the next one, and who makes way for whom.

The rules are about values alone, so that a test can hold them against any course of events.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Final

import attrs

from bootvol.store.waiting import Waiting

#: What has a limit: all of a lane, or a backend or source in it.
Key = tuple[str | None, ...]
#: So many times as many as may run at once are begun, counting those that do not count as running.
BEGUN: Final = 4


@attrs.frozen
class Limit:
    """How many places there are of something.

    :ivar strict: whether a job without progress counts, too.
    """

    key: Key
    most: int
    strict: bool = False


@attrs.frozen
class Rules:
    """The limits of a lane.

    :ivar limits: returns those that something needs a place of; tenants compete for the places of
        the first one.
    :ivar spare: places beyond each limit, for tenants that have none.
    :ivar gives_way: whether a job of the lane can give its place back before it has ended.
    """

    limits: Callable[[Waiting], Sequence[Limit]]
    spare: int = 0
    gives_way: bool = False


@attrs.frozen
class Standing:
    """How it stands with one job of a lane.

    :ivar number: which one it is.
    :ivar what: whose the job is, and what it needs.
    :ivar held: whether the job has a place.
    :ivar wanted: whether the job waits for a place, after it had one.
    :ivar lively: whether the job makes progress.
    :ivar slow: whether that is less than it should be.
    :ivar asked: whether the job was asked to give way, and is expected to.
    :ivar since: when the job had its place, or began to want one, in seconds.
    """

    number: int
    what: Waiting
    held: bool = True
    wanted: bool = False
    lively: bool = True
    slow: bool = False
    asked: bool = False
    since: float = 0.0

    @property
    def runs(self) -> bool:
        """Whether the job counts as running."""
        return self.held and self.lively and not self.slow


@attrs.frozen
class Shares:
    """A lane at one moment.

    :ivar jobs: all of its jobs.
    :ivar last: when each tenant last had a turn: a number that grows.
    """

    rules: Rules
    jobs: Sequence[Standing] = ()
    last: Mapping[str, int] = attrs.Factory(dict)

    # --- who is next -----------------------------------------------------------------------------

    def returning(self) -> Standing | None:
        """Return the next of the jobs that want a place again, if there is room for one."""
        ready = [each for each in self.jobs if each.wanted and not self._full(each.what)]
        return min(ready, key=lambda each: (self._rank_of(each), each.since), default=None)

    def admitted(self, waiting: Collection[Waiting]) -> Sequence[Waiting]:
        """See :meth:`bootvol.store.waiting.Order.admitted`."""
        first = self.returning()
        ready = [each for each in waiting if self._may_begin(each) and not self._full(each)]
        if first is not None:
            ready = [each for each in ready if self._rank(each) < self._rank_of(first)]
        return sorted(ready, key=self._rank)

    def places(self, waiting: Waiting) -> int:
        """See :meth:`bootvol.store.waiting.Order.places`."""
        return self._taken(self.rules.limits(waiting)[0])[waiting.tenant]

    def _rank(self, what: Waiting, *, slow: bool = False) -> tuple[int, int, bool]:
        return self.places(what), self.last.get(what.tenant, 0), slow

    def _rank_of(self, job: Standing) -> tuple[int, int, bool]:
        return self._rank(job.what, slow=job.slow)

    def _full(self, what: Waiting) -> Sequence[Limit]:
        """Return the limits that something has to wait for."""
        full = []
        for limit in self.rules.limits(what):
            taken = self._taken(limit)
            spare = 0 if taken[what.tenant] else self.rules.spare
            if taken.total() >= limit.most + spare:
                full.append(limit)
        return full

    def _may_begin(self, what: Waiting) -> bool:
        """Tell whether one more may be begun, whatever counts as running.

        What hangs takes threads and memory, and what waits in the middle takes memory.
        """
        first = self.rules.limits(what)[0]
        mine = [each for each in self.jobs if _alike(each.what, what)]
        hung = sum(each.held and not each.lively for each in mine)
        if len(mine) >= BEGUN * first.most or (what.source is not None and hung >= first.most):
            return False
        begun = self._begun[first.key]
        spare = 0 if begun[what.tenant] else self.rules.spare
        return begun.total() < BEGUN * first.most + spare

    # --- who makes way ---------------------------------------------------------------------------

    def in_the_way(self, waiting: Collection[Waiting], now: float, turn: float) -> Standing | None:
        """Return the job that is to give its place back, for the first that waits for one.

        That is a job of a tenant with at least two places more than the one who waits; or with one
        place more, if the job has had its place for a whole turn; or a slow one of the same tenant.

        :param now: the time, in seconds.
        :param turn: how long a turn is, in seconds.
        """
        if not self.rules.gives_way:
            return None
        wishes = [(self._rank(each), each) for each in waiting if self._may_begin(each)]
        wishes += [(self._rank_of(each), each.what) for each in self.jobs if each.wanted]
        for _, what in sorted(wishes, key=lambda wish: wish[0]):
            for limit in self._full(what)[:1]:
                if (found := self._victim(limit, what, now - turn)) is not None:
                    return found
        return None

    def _victim(self, limit: Limit, what: Waiting, before: float) -> Standing | None:
        holders = [each for each in self.jobs if self._counts(each, limit)]
        if any(each.asked for each in holders):
            return None
        taken = self._taken(limit)

        def makes_way(job: Standing) -> bool:
            more = taken[job.what.tenant] - taken[what.tenant]
            own = job.slow and job.what.tenant == what.tenant
            return more >= 2 or ((more == 1 or own) and job.since <= before)

        return min(
            filter(makes_way, holders),
            key=lambda each: (not each.slow, -taken[each.what.tenant], each.since),
            default=None,
        )

    def surplus(self, waiting: Collection[Waiting]) -> Standing | None:
        """Return the job that is to be put back in line, since nothing else can begin.

        That is one that does not run, of a tenant with at least two more begun than one who waits.
        """
        for what in sorted(waiting, key=self._rank):
            first = self.rules.limits(what)[0]
            begun = self._begun[first.key]
            if begun.total() < BEGUN * first.most:
                continue
            idle = [
                each
                for each in self.jobs
                if (each.held or each.wanted)
                and not each.runs
                and first.key in self._keys(each)
                and begun[each.what.tenant] >= begun[what.tenant] + 2
            ]
            if idle:
                return max(idle, key=lambda each: (begun[each.what.tenant], each.since))
        return None

    # --- counting --------------------------------------------------------------------------------

    def _keys(self, job: Standing) -> Collection[Key]:
        return [limit.key for limit in self.rules.limits(job.what)]

    def _counts(self, job: Standing, limit: Limit) -> bool:
        return (job.runs or (limit.strict and job.held)) and limit.key in self._keys(job)

    def _taken(self, limit: Limit) -> Counter[str]:
        """Return how many places each tenant has of what a limit is of."""
        return (self._held if limit.strict else self._running)[limit.key]

    @cached_property
    def _running(self) -> Mapping[Key, Counter[str]]:
        return self._by_key(job for job in self.jobs if job.runs)

    @cached_property
    def _held(self) -> Mapping[Key, Counter[str]]:
        return self._by_key(job for job in self.jobs if job.held)

    @cached_property
    def _begun(self) -> Mapping[Key, Counter[str]]:
        return self._by_key(job for job in self.jobs if job.held or job.wanted)

    def _by_key(self, jobs: Iterable[Standing]) -> Mapping[Key, Counter[str]]:
        """Return how many jobs each tenant has, by what they need places of."""
        found: defaultdict[Key, Counter[str]] = defaultdict(Counter)
        for job in jobs:
            for key in self._keys(job):
                found[key][job.what.tenant] += 1
        return found


def _alike(one: Waiting, other: Waiting) -> bool:
    """Tell whether two are of one tenant, from one source onto one backend."""
    return (one.tenant, one.backend, one.source) == (other.tenant, other.backend, other.source)
