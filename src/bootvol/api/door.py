"""Authentication of callers, with limits on the calls in flight.

A call holds a place of its client's address until the caller is known, and then a place of the
tenant.  A call needs no place of an address if the identity plugin knows the token without asking
another service.  One call begins in each turn of the reactor, and tenants take turns.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IRequest

from bootvol.api.addresses import address
from bootvol.api.http import token
from bootvol.fair_share import Paced
from bootvol.interfaces import IIdentity
from bootvol.model import Caller
from bootvol.service.inflight import CallLimits, InFlight
from bootvol.store.asker import ASKER

#: The header with a service's own token, beside the token of the user whose request it forwards.
_SERVICE_TOKEN: Final = b"X-Service-Token"


class Door:
    """The entry of authenticated callers.

    Log-ins do not pass here: a plugin with log-ins limits them itself.

    :param identity: authenticates tokens.
    :param bounds: limits on the calls in flight.
    :param clock: the reactor.
    """

    def __init__(self, identity: IIdentity, bounds: CallLimits, clock: IReactorTime) -> None:
        self._identity = identity
        self._pace = Paced(clock)
        self._strangers = InFlight(bounds.strangers)
        self._tenants = InFlight(bounds.tenants)

    @asynccontextmanager
    async def caller(self, request: IRequest) -> AsyncIterator[Caller]:
        """Authenticate a request, and yield the caller; the call is in flight until the block ends.

        :raises Unauthorized: if the request has no valid token, or an invalid service token.
        :raises TooManyCalls: if too many calls of the address or tenant are in flight.
        """
        authenticating = Deferred.fromCoroutine(self._authenticate(request))
        found = await self._strangers.through(address(request), authenticating)
        called: Any = request
        called.tenant = found.tenant
        # This sets the tenant of this call alone: the answering coroutine has its own context.
        ASKER.set(found.tenant)
        with self._tenants.place(found.tenant):
            # Reading a body and making an answer take the reactor's time.
            await self._pace.turn(found.tenant)
            yield attrs.evolve(found, request_id=getattr(request, "request_id", ""))

    async def _authenticate(self, request: IRequest) -> Caller:
        """Return the caller, with the roles of the service that forwards the request, if any.

        :raises Unauthorized: if a token is not valid.
        """
        caller = await self._identity.authenticate(token(request))
        if not request.getHeader(_SERVICE_TOKEN):
            return caller
        service = await self._identity.authenticate(token(request, _SERVICE_TOKEN))
        return attrs.evolve(caller, service_roles=service.roles)
