"""The context of a request of the identity API, and the admission of its callers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
from twisted.web.iweb import IRequest

from bootvol.api.addresses import address
from bootvol.api.dialects import Incoming
from bootvol.api.http import token
from bootvol.api.keystone.catalog import Catalog
from bootvol.api.operations import Admission, Operation
from bootvol.fair_share import Paced
from bootvol.login import ILogin, Session
from bootvol.policy import Policy
from bootvol.service.inflight import InFlight


@attrs.frozen
class IdentityServices:
    """The use cases behind the identity API.

    :ivar policy: decides who may see and revoke other users' tokens.
    :ivar revoking: limits the revocations of tokens that happen at once.
    """

    login: ILogin
    policy: Policy
    catalog: Catalog
    revoking: InFlight


@attrs.frozen
class IdentityContext:
    """The context of a request from anybody."""

    services: IdentityServices
    request: IRequest


@attrs.frozen
class SessionContext(IdentityContext):
    """The context of a request with a valid token of this identity API."""

    session: Session


class Sessions:
    """Admits the callers of the identity API.

    :param pace: paces log-ins, in turns of addresses, because reading a body takes the reactor's
        time.
    """

    def __init__(self, services: IdentityServices, pace: Paced) -> None:
        self._services = services
        self._pace = pace

    @asynccontextmanager
    async def admit(self, incoming: Incoming) -> AsyncIterator[IdentityContext]:
        """Yield the context of a request; see :meth:`bootvol.api.admission.Callers.admit`.

        :raises bootvol.errors.Unauthorized: if the operation needs a session, and the request has
            no valid token.
        """
        request = incoming.request
        if incoming.operation.admission is Admission.NOBODY:
            await self._pace.turn(address(request))
            yield IdentityContext(self._services, request)
        else:
            session = await self._services.login.session(token(request))
            yield SessionContext(self._services, request, session)


def refusals(operation: Operation) -> frozenset[int]:
    """Return the statuses of an operation's possible failures."""
    return frozenset((400, 401, 500, 503, *operation.refusals))
