"""The queue of waiting logins, with fair shares for networks, and for users within a network."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
from twisted.internet.defer import Deferred

from bootvol.errors import TooManyLogins


@attrs.frozen(eq=False)
class _Waiting:
    """A waiting login.

    :ivar user: the network and the user.  Two logins of one user from one network never run at
        once.
    :ivar known: whether the user has logged in before.
    """

    network: bytes
    user: tuple[bytes, bytes]
    turn: Deferred[None]
    known: bool


class Turns:
    """The queue of logins.

    Users who logged in before have places of their own.  Strangers take none of these places, from
    however many networks.

    :param at_once: number of concurrent logins.
    :param most: number of waiting logins of users who logged in before, and of other users.
    """

    def __init__(self, at_once: int, most: int) -> None:
        self._free = at_once
        self._most = most
        self._waiting: list[_Waiting] = []
        self._running: set[tuple[bytes, bytes]] = set()
        #: The number of the last turn of each network, and of each user of a network.
        self._last: dict[object, int] = {}
        self._turns = 0

    @asynccontextmanager
    async def turn(
        self, network: bytes, name: bytes, *, known: bool = False
    ) -> AsyncIterator[None]:
        """Wait for a turn.  The turn ends with the block.

        :param network: the unit of fair shares.
        :param name: the claimed user.
        :param known: whether the user has logged in before.
        :raises TooManyLogins: if too many other logins wait.
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
        """Free a place in the queue: remove the last login of the network with the most logins.

        Within this network, remove a login of the user with the most logins.

        :raises TooManyLogins: if the newcomer itself would be removed.
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
        """Give each free turn to the login whose network, then user, had the oldest last turn."""
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
        """Return the last turns of the network and of the user; 0 for a newcomer."""
        return self._last.get(waiting.network, 0), self._last.get(waiting.user, 0)
