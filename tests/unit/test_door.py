"""One call or log-in begins in each turn of the reactor, since each takes time."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.web.server import Request
from twisted.web.test.requesthelper import DummyChannel

from bootvol.api.door import Door
from bootvol.api.embedded import identity, v2, v3
from bootvol.errors import LoginFailed
from bootvol.model import Caller
from bootvol.policy import Policy
from bootvol.service.inflight import Bounds
from tests.unit.test_channels import turn


class Everybody:
    """An identity that accepts each token as a tenant of the same name."""

    async def authenticate(self, token: str) -> Caller:
        """See :meth:`bootvol.interfaces.IIdentity.authenticate`."""
        return Caller("u", token, frozenset())


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
    door = Door(Everybody(), Bounds.of(100), clock)  # type: ignore[arg-type]
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


@pytest.mark.parametrize("module", [v2, v3])
def test_log_ins_begin_one_a_turn(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, module: Any
) -> None:
    """The body of one log-in is read in each turn of the reactor, and addresses take turns.

    Break: `src/bootvol/api/embedded/v3.py`: `await self._pace.turn(address(request))` -> `await
    self._pace.turn("")`.
    Break: `src/bootvol/fair_share.py`: `self._clock.callLater(0, self._turns.release, asker)` ->
    `self._turns.release(asker)`.
    """
    read: list[str] = []

    def refuse(request: Any, _model: object) -> None:
        read.append(request.client.host)
        raise LoginFailed

    monkeypatch.setattr(module, "read", refuse)
    path = b"/tokens" if module is v2 else b"/auth/tokens"
    prefix = b"v2.0" if module is v2 else b"v3"
    mounts = identity.mounts(Everybody(), Policy(), "region", 9, clock)  # type: ignore[arg-type]
    app = next(each.app for each in mounts if each.prefix[-1] == prefix)
    for host in ["192.0.2.1"] * 5 + ["198.51.100.1"]:
        request: Any = Request(DummyChannel())
        request.client = IPv4Address("TCP", host, 1)
        request.method, request.prepath = b"POST", []
        request.postpath = path.split(b"/")[1:]
        app.resource().render(request)
    for count in range(1, 7):
        assert len(read) == count
        turn(clock)
    assert read.index("198.51.100.1") <= 2
