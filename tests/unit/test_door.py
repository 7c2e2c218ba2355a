"""One call or log-in begins in each turn of the reactor, since each takes time."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from pydantic import BaseModel
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.web.server import Request
from twisted.web.test.requesthelper import DummyChannel

from bootvol.api.application import Application
from bootvol.api.dialects import Dialect
from bootvol.api.door import Door
from bootvol.api.keystone.context import IdentityContext, Sessions
from bootvol.api.keystone.v2 import V2
from bootvol.api.keystone.v3 import V3
from bootvol.errors import LoginFailed, Unauthorized
from bootvol.fair_share import Paced
from bootvol.model import Caller
from bootvol.service.inflight import CallLimits
from tests.unit.test_channels import turn


class Everybody:
    """An identity that accepts each token as a tenant of the same name."""

    async def authenticate(self, token: str) -> Caller:
        """See :meth:`bootvol.interfaces.IIdentity.authenticate`."""
        return Caller("u", token, frozenset())


class Known:
    """An identity that accepts two tokens."""

    async def authenticate(self, token: str) -> Caller:
        """See :meth:`bootvol.interfaces.IIdentity.authenticate`."""
        if token not in ("ann", "nova"):
            raise Unauthorized
        return Caller(token, token, frozenset({"service"} if token == "nova" else {"member"}))


@pytest.fixture
def clock() -> Clock:
    """The reactor."""
    return Clock()


def test_calls_begin_one_a_turn_and_tenants_take_turns(clock: Clock) -> None:
    """Another tenant's call begins in the next turn but one, no matter how many calls of the first
    wait.

    Break: `src/bootvol/api/door.py`: `await self._pace.turn(found.tenant)` -> `await
    self._pace.turn("")`.
    Break: `src/bootvol/fair_share.py`: `self._clock.callLater(0, self._turns.release, asker)` ->
    `self._turns.release(asker)`.
    """
    door = Door(Everybody(), CallLimits.of(100), clock)  # type: ignore[arg-type]
    begun: list[str] = []

    async def call(tenant: str) -> None:
        request = Request(DummyChannel())
        request.requestHeaders.setRawHeaders("X-Auth-Token", [tenant])
        async with door.caller(request) as caller:
            begun.append(caller.tenant)

    for tenant in ["ann"] * 10 + ["bob"]:
        Deferred.fromCoroutine(call(tenant))
    for count in range(1, 12):
        assert len(begun) == count
        turn(clock)
    assert begun.index("bob") <= 2


@pytest.mark.parametrize(
    ("dialect", "path"), [(V2, b"tokens"), (V3, b"auth/tokens")], ids=["v2.0", "v3"]
)
def test_log_ins_begin_one_a_turn(
    clock: Clock, dialect: Dialect[IdentityContext], path: bytes
) -> None:
    """The body of one log-in is read in each turn of the reactor, and addresses take turns.

    Break: `src/bootvol/api/keystone/context.py`: `await self._pace.turn(address(request))` ->
    `await self._pace.turn("")`.
    Break: `src/bootvol/fair_share.py`: `self._clock.callLater(0, self._turns.release, asker)` ->
    `self._turns.release(asker)`.
    """
    read: list[str] = []

    def refuse(request: Any, *_: object) -> BaseModel:
        read.append(request.client.host)
        raise LoginFailed

    nothing: Any = None  # no log-in happens
    sessions = Sessions(nothing, Paced(clock))
    app = Application(attrs.evolve(dialect, read_body=refuse), sessions.admit).klein
    for host in ["192.0.2.1"] * 5 + ["198.51.100.1"]:
        request: Any = Request(DummyChannel())
        request.client = IPv4Address("TCP", host, 1)
        request.method, request.prepath = b"POST", []
        request.postpath = path.split(b"/")
        app.resource().render(request)
    for count in range(1, 7):
        assert len(read) == count
        turn(clock)
    assert read.index("198.51.100.1") <= 2


@pytest.mark.parametrize(
    ("user", "service", "roles"),
    [
        ("ann", None, frozenset()),
        ("ann", "", frozenset()),
        ("ann", "ann", {"member"}),
        ("ann", "nova", {"service"}),
        # A token of a service alone is a user's token.
        ("nova", None, frozenset()),
        ("ann", "nobody", None),
        ("nobody", "nova", None),
    ],
)
def test_only_a_second_token_speaks_for_a_service(
    clock: Clock, user: str, service: str | None, roles: frozenset[str] | None
) -> None:
    """Break: `src/bootvol/api/door.py`: `getHeader(_SERVICE_TOKEN)` -> `getHeader(b"X")`."""
    door = Door(Known(), CallLimits.of(100), clock)  # type: ignore[arg-type]
    request = Request(DummyChannel())
    request.requestHeaders.setRawHeaders("X-Auth-Token", [user])
    if service is not None:
        request.requestHeaders.setRawHeaders("X-Service-Token", [service])

    async def call() -> Caller:
        async with door.caller(request) as caller:
            return caller

    found: list[Caller | Unauthorized] = []
    Deferred.fromCoroutine(call()).addCallbacks(found.append, lambda why: found.append(why.value))
    turn(clock)
    (answer,) = found
    if roles is None:
        assert isinstance(answer, Unauthorized)
    else:
        assert isinstance(answer, Caller)
        assert (answer.user, answer.service_roles) == (user, roles)
