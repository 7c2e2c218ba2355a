"""The disk space for all spools of a daemon.

An import that lacks space gives its own space back, and then waits until others give theirs back.
If imports waited with their space, two with half of their space each could wait for each other for
ever.  The imports that lacked space first go first: others leave them the space that they need.  So
no tenant's imports keep another tenant's import out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from bootvol.clocks import sleep
from bootvol.errors import SpoolFull

#: Seconds until any file system gives out the space of closed files again.  ext4 does so only with
#: its next commit, after five seconds by default.
_LATE: Final = 6.0


class Share:
    """The space of one import: see :meth:`Room.share`.

    :ivar held: the bytes that the import has now.
    :ivar needs: the fewest bytes that help the import, after a lack of space.
    :ivar is_alone: whether no other import has had space or goes first.  Then a wait cannot help.
    """

    def __init__(self, room: Room) -> None:
        self._room = room
        self._waiting: Deferred[None] | None = None
        self.held = self.needs = 0
        self.is_alone = True

    @property
    def waits(self) -> bool:
        """True while the import waits for space."""
        return self._waiting is not None

    def take(self, length: int) -> None:
        """Take ``length`` bytes.

        :raises SpoolFull: if no more space is left for this import.
        """
        self._room.take(self, length)

    def give_back(self) -> None:
        """Give all space back."""
        self._room.give_back(self)

    def lack(self) -> None:
        """Note that the import lacks space.  Call this method before :meth:`give_back`."""
        self._room.lack(self)

    async def wait(self) -> None:
        """Wait until enough space may be left.  Call this method after :meth:`give_back`."""
        waiting: Deferred[None] = Deferred()
        self._waiting = waiting
        self._room.wake()
        try:
            await waiting
        finally:
            self._waiting = None
        await self._room.settle()

    def wake(self) -> None:
        """End the wait."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)


class Room:
    """The space for all spools.

    Call all methods from the reactor thread only.

    :param size: limit in bytes; None for all the space of the disk.
    :param clock: the reactor.
    """

    def __init__(self, size: int | None, clock: IReactorTime) -> None:
        self._size = size
        self._clock = clock
        self._shares: list[Share] = []
        #: The imports that have lacked space, in this order.
        self._lacking: list[Share] = []

    @contextmanager
    def share(self) -> Iterator[Share]:
        """Yield the share of one import, which begins without space."""
        share = Share(self)
        self._shares.append(share)
        try:
            yield share
        finally:
            self._shares.remove(share)
            if share in self._lacking:
                self._lacking.remove(share)
            self.wake()

    def take(self, share: Share, length: int) -> None:
        """See :meth:`Share.take`."""
        if not share.held:
            share.is_alone = not self._lacking or share is self._lacking[0]
        for each in self._shares:
            if each is not share and each.held:
                each.is_alone = share.is_alone = False
        if not self._may_have(share, length):
            raise SpoolFull
        share.held += length

    def give_back(self, share: Share) -> None:
        """See :meth:`Share.give_back`."""
        share.held = 0
        self.wake()

    def lack(self, share: Share) -> None:
        """See :meth:`Share.lack`."""
        share.needs = share.held + 1
        if share not in self._lacking:
            self._lacking.append(share)

    def wake(self) -> None:
        """End the waits of imports for which enough space may be left."""
        for share in list(self._lacking):
            is_next = share is self._lacking[0] and not self._taken
            if share.waits and (is_next or self._fits(share, share.needs)):
                share.wake()

    async def settle(self) -> None:
        """Wait until the space that was given back can be used."""
        if self._size is None:
            await sleep(self._clock, _LATE)

    @property
    def _taken(self) -> int:
        return sum(each.held for each in self._shares)

    def _may_have(self, share: Share, length: int) -> bool:
        if self._size is None:
            # Nobody knows the size of a full disk, so the imports go one after the other.
            return not self._lacking or share is self._lacking[0]
        return self._fits(share, length)

    def _fits(self, share: Share, length: int) -> bool:
        """Tell whether an import may have some bytes, and leaves the first one what it needs."""
        first = self._lacking[0] if self._lacking else share
        reserved = 0 if first is share else max(0, first.needs - first.held)
        return self._size is not None and self._taken + length + reserved <= self._size
