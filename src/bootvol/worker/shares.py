"""Fair shares of a lane's places: the next tenant to get a place, and the job to give way.

The rules work on values alone, so that a test can check them against any sequence of events.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Final

import attrs

from bootvol.store.waiting import Waiting

#: The key of a limit: the whole lane, or a backend or source in the lane.
Key = tuple[str | None, ...]
#: The limit of begun jobs, as a multiple of the limit of running jobs. A begun job counts even
#: while it does not count as running.
BEGUN: Final = 4


@attrs.frozen
class Limit:
    """The number of places for one key.

    :ivar strict: whether jobs without progress count, too.
    """

    key: Key
    most: int
    strict: bool = False


@attrs.frozen
class Rules:
    """The limits of a lane.

    :ivar limits: returns the limits that apply to some work; tenants compete for the places of the
        first one.
    :ivar spare: places beyond each limit, for tenants without a place.
    :ivar gives_way: whether a job of the lane can give its place back before it has ended.
    """

    limits: Callable[[Waiting], Sequence[Limit]]
    spare: int = 0
    gives_way: bool = False


@attrs.frozen
class Standing:
    """The state of one job of a lane.

    :ivar number: the number of the job.
    :ivar what: the job's tenant, and the limits that apply to the job.
    :ivar held: whether the job has a place.
    :ivar wanted: whether the job waits for a place, after it had one.
    :ivar lively: whether the job makes progress.
    :ivar slow: whether the progress is slower than the lane's minimum.
    :ivar asked: whether the job was asked to give way, and is expected to.
    :ivar since: time in seconds since when the job has had its place, or has waited for one.
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
        """True if the job counts as running."""
        return self.held and self.lively and not self.slow


@attrs.frozen
class Shares:
    """A lane at one moment.

    :ivar jobs: all jobs of the lane.
    :ivar last: a number for the last turn of each tenant; later turns have larger numbers.
    """

    rules: Rules
    jobs: Sequence[Standing] = ()
    last: Mapping[str, int] = attrs.Factory(dict)

    # --- who is next -----------------------------------------------------------------------------

    def returning(self) -> Standing | None:
        """Return the next job that wants its place again; None if no such job has room."""
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
        """Return the exhausted limits of some work."""
        full = []
        for limit in self.rules.limits(what):
            taken = self._taken(limit)
            spare = 0 if taken[what.tenant] else self.rules.spare
            if taken.total() >= limit.most + spare:
                full.append(limit)
        return full

    def _may_begin(self, what: Waiting) -> bool:
        """Tell whether one more job may begin, by the number of begun jobs alone.

        A hanging job takes threads and memory; a job that waits in its middle takes memory.
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
        """Return the job that should give its place back, for the first waiting work or job.

        A job gives way if its tenant has at least two places more than the waiting tenant. With one
        place more, a job gives way after a whole turn. A slow job gives way after a whole turn to
        its own tenant's work as well.

        :param now: the current time in seconds.
        :param turn: length of a turn in seconds.
        """
        if not self.rules.gives_way:
            return None
        wishes = [(self._rank(each), each) for each in waiting if self._may_begin(each)]
        wishes += [(self._rank_of(each), each.what) for each in self.jobs if each.wanted]
        for _, what in sorted(wishes, key=lambda wish: wish[0]):
            # A place of a wider limit would be of no use while the narrower limit is exhausted.
            for limit in self._full(what)[-1:]:
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
        """Return the job that should go back in line, since nothing else can begin.

        Such a job does not run, and its tenant has at least two more begun jobs than a waiting
        tenant.
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
        """Return how many places of a limit each tenant takes."""
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
        """Count the jobs of each tenant, by the keys of their limits."""
        found: defaultdict[Key, Counter[str]] = defaultdict(Counter)
        for job in jobs:
            for key in self._keys(job):
                found[key][job.what.tenant] += 1
        return found


def _alike(one: Waiting, other: Waiting) -> bool:
    """Tell whether both are of one tenant, and from one source onto one backend."""
    return (one.tenant, one.backend, one.source) == (other.tenant, other.backend, other.source)
