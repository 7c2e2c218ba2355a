"""Admission of callers who present a token of a project.

Every dialect checks in the same order: the token, the tenant, the rate limits, the right.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Final, Generic, TypeVar

from twisted.web.iweb import IRequest

from bootvol.api.context import Services
from bootvol.api.dialects import Incoming
from bootvol.api.door import Door
from bootvol.api.http import query
from bootvol.api.operations import Operation
from bootvol.errors import Forbidden, MalformedUrl
from bootvol.model import Caller
from bootvol.policy import Policy

ContextT = TypeVar("ContextT")

#: Makes the context of an admitted request; the last argument is the version in the path.
MakeContext = Callable[[Services, Policy, Caller, IRequest, str], ContextT]
#: Returns the paths that rate limits are matched with, from the declared path and its segments.
RatePaths = Callable[[str, Mapping[str, str]], Iterable[str]]

#: The statuses of failures that every operation may answer with: because of the request, the token,
#: a missing right, a rate limit, or the identity service.
_ALWAYS: Final = (400, 401, 403, 413, 500, 503)


def refusals(operation: Operation) -> frozenset[int]:
    """Return the statuses of an operation's possible failures."""
    return frozenset((*_ALWAYS, *operation.refusals) + (404,) * ("<" in operation.path))


def segments_filled(path: str, segments: Mapping[str, str]) -> list[str]:
    """Return the declared path with the values of its names, for rate limits."""
    return ["/" + re.sub("<([a-z_]+)>", lambda found: segments[found[1]], path)]


class Callers(Generic[ContextT]):
    """Admits the callers of a dialect at the door.

    :param policy: decides the caller's rights.
    """

    def __init__(
        self,
        door: Door,
        policy: Policy,
        services: Services,
        context: MakeContext[ContextT],
        rate_paths: RatePaths,
    ) -> None:
        self._door = door
        self._policy = policy
        self._services = services
        self._context = context
        self._rate_paths = rate_paths

    @asynccontextmanager
    async def admit(self, incoming: Incoming) -> AsyncIterator[ContextT]:
        """Yield the context of a request; the call is in flight until the block ends.

        :raises bootvol.errors.Unauthorized: if the request has no valid token.
        :raises bootvol.errors.TooManyCalls: if too many calls of the address or tenant are in
            flight.
        :raises MalformedUrl: if the token is of another tenant.
        :raises bootvol.errors.RateLimited: if the tenant has exceeded a rate limit.
        :raises Forbidden: if the caller has not the right that the operation needs.
        """
        request, operation = incoming.request, incoming.operation
        async with self._door.caller(request) as caller:
            if incoming.tenant is not None and caller.tenant != incoming.tenant:
                raise MalformedUrl
            paths = self._rate_paths(incoming.path, incoming.segments)
            self._services.rates.count(caller.tenant, operation.method, query(request), *paths)
            if operation.right is None:
                raise Forbidden
            self._policy.check(caller.roles, operation.right)
            yield self._context(self._services, self._policy, caller, request, incoming.version)
