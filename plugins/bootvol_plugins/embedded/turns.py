"""The line of log-ins that wait: networks take turns in it, and users within a network."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
from twisted.internet.defer import Deferred

from bootvol.errors import TooManyLogins


@attrs.frozen(eq=False)
class _Waiting:
    """A log-in that waits.

    :ivar user: of this network: two log-ins of one user from one network never run at once.
    :ivar known: whether it is of a user who logged in before.
    """

    network: bytes
    user: tuple[bytes, bytes]
    turn: Deferred[None]
    known: bool


class Turns:
    """The line.

    Strangers from however many networks take no place in the line from users who logged in before.

    :param at_once: how many log-ins run.
    :param most: how many may wait of users who logged in before, and how many of others.
    """

    def __init__(self, at_once: int, most: int) -> None:
        self._free = at_once
        self._most = most
        self._waiting: list[_Waiting] = []
        self._running: set[tuple[bytes, bytes]] = set()
        #: When each network, and each user of a network, last had a turn; counted in turns.
        self._last: dict[object, int] = {}
        self._turns = 0

    @asynccontextmanager
    async def turn(
        self, network: bytes, name: bytes, *, known: bool = False
    ) -> AsyncIterator[None]:
        """Wait for a turn; the turn ends with the block.

        :param network: what takes turns with others.
        :param name: of the user, as claimed.
        :param known: whether the user has logged in before.
        :raises TooManyLogins: too many others wait.
        """
        turn: Deferred[None] = Deferred()
        own = _Waiting(network, (network, name), turn, known)
        self._make_room(own)
        self._waiting.append(own)
        self._give()
        try:
            await turn
        except BaseException:
            if own in self._waiting:
                self._waiting.remove(own)
            raise
        try:
            yield
        finally:
            self._running.remove(own.user)
            self._free += 1
            self._give()

    def _make_room(self, newcomer: _Waiting) -> None:
        """Leave a place free: the last log-in of the network with the most of them goes.

        Of that network it is a log-in of the user with the most.

        :raises TooManyLogins: that is the newcomer.
        """
        line = [each for each in self._waiting if each.known == newcomer.known]
        if len(line) < self._most:
            return
        networks = Counter(each.network for each in line)
        greediest = max(networks, key=lambda each: (networks[each], each == newcomer.network))
        is_own = greediest == newcomer.network
        if not is_own and networks[newcomer.network] + 1 >= networks[greediest]:
            raise TooManyLogins(1.0)
        users = Counter(each.user for each in line if each.network == greediest)
        user = max(users, key=lambda each: users[each])
        if is_own and users[newcomer.user] + 1 >= users[user]:
            raise TooManyLogins(1.0)
        last = next(each for each in reversed(line) if each.user == user)
        self._waiting.remove(last)
        last.turn.errback(TooManyLogins(1.0))

    def _give(self) -> None:
        """Give turns to those who have waited for one the longest, by network and by user."""
        while self._free and (
            ready := [each for each in self._waiting if each.user not in self._running]
        ):
            chosen = min(ready, key=self._had)
            self._waiting.remove(chosen)
            self._running.add(chosen.user)
            self._free -= 1
            self._turns += 1
            self._last |= {chosen.network: self._turns, chosen.user: self._turns}
            chosen.turn.callback(None)
        there = [*(each.user for each in self._waiting), *self._running]
        kept: set[object] = {*there, *(network for network, _ in there)}
        self._last = {key: turn for key, turn in self._last.items() if key in kept}

    def _had(self, waiting: _Waiting) -> tuple[int, int]:
        """Return when the network, and when the user, last had a turn; 0 for a newcomer."""
        return self._last.get(waiting.network, 0), self._last.get(waiting.user, 0)
