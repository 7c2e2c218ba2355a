"""The optional interface of block backends that know their free space."""

from __future__ import annotations

import attrs
from zope.interface import Interface


@attrs.frozen
class Room:
    """The space of a backend's store in bytes.

    :ivar total: how much the store can hold, with what the store holds already.
    :ivar free: how much of that is free.  Others may use the space, too.
    """

    total: int
    free: int


class IMeasuredBackend(Interface):
    """Optional interface of a backend that knows how full its store is."""

    async def room() -> Room | None:
        """Return the space of the store.

        A call of an operator waits for the answer, so the call should be quick.  Idempotent.  A
        cancelled call leaves nothing behind.

        :returns: the space, which may be some seconds old; None if the store does not tell now.
        :raises bootvol.errors.BackendFailed: if the store cannot be reached.
        """
