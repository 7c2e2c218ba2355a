"""The door: who asks, and how many of them are waited for at once.

Before it is known who asks, a client's address holds the place of its call; after that, the tenant
does.  A token that the identity service knows without asking anybody needs no place of an address.
One call begins in each turn of the reactor, and tenants take turns.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IRequest

from bootvol.api.addresses import address
from bootvol.api.http import token
from bootvol.interfaces import IIdentity
from bootvol.model import Caller
from bootvol.service.inflight import Bounds, InFlight
from bootvol.store.asker import ASKER
from bootvol.turns import Paced


class Door:
    """Lets callers in.

    Log-ins are not its concern: a plugin that takes them bounds them itself.

    :param identity: says whom a token speaks for.
    :param clock: the reactor.
    """

    def __init__(self, identity: IIdentity, bounds: Bounds, clock: IReactorTime) -> None:
        self._identity = identity
        self._pace = Paced(clock)
        self._strangers = InFlight(bounds.strangers)
        self._tenants = InFlight(bounds.tenants)

    @asynccontextmanager
    async def caller(self, request: IRequest) -> AsyncIterator[Caller]:
        """Give the block who asks; the call is in flight until the block ends.

        :raises Unauthorized: nobody that is known.
        :raises TooManyCalls: too many calls of that address or tenant are in flight.
        """
        asked = Deferred.fromCoroutine(self._identity.authenticate(token(request)))
        found = await self._strangers.through(address(request), asked)
        called: Any = request
        called.tenant = found.tenant
        # Of this call alone: the coroutine that answers has a context of its own.
        ASKER.set(found.tenant)
        with self._tenants.place(found.tenant):
            # To read a body, and to make an answer, takes the reactor's time.
            await self._pace.turn(found.tenant)
            yield attrs.evolve(found, request_id=getattr(request, "request_id", ""))
