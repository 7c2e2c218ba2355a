"""Calls that wait for something slow: they delay nobody else."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, DeferredList, gatherResults
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol

from bootvol import files
from bootvol.service import keypairs
from bootvol.store import volumes
from bootvol.testing.backends import noise
from tests.daemons import OTHER_TENANT, TENANT, Answer, Running, pause, reactor
from tests.people import PASSWORD, PEOPLE
from tests.waiting import LIMIT, until

#: With this number of connections, a quarter of the connections may wait for a source; a tenant may
#: have half of them.
CONNECTIONS = 40
OF_A_TENANT = CONNECTIONS // 4 // 2


class Silent(Factory):
    """A server that accepts connections without an answer.

    :ivar connections: the open connections.
    :ivar ended: True once the server accepts no more connections.
    """

    noisy = False

    def __init__(self) -> None:
        self.connections: list[Protocol] = []
        self.ended = False
        self.url = ""

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        """See IProtocolFactory."""
        if self.ended:
            return None
        self.connections.append(Protocol())
        return self.connections[-1]

    async def has(self, count: int) -> None:
        """Wait until a number of connections is open."""
        await until(lambda: len(self.connections), lambda found: found == count)

    def end(self) -> None:
        """End all connections without an answer, and accept no more."""
        self.ended = True
        while self.connections:
            transport = self.connections.pop().transport
            assert transport is not None
            transport.abortConnection()  # type: ignore[attr-defined]


@pytest.fixture
def silent() -> Iterator[Silent]:
    """A silent server on loopback."""
    server = Silent()
    port = reactor.listenTCP(0, server, interface="127.0.0.1")
    server.url = f"http://127.0.0.1:{port.getHost().port}/"
    yield server
    server.end()
    pytest_twisted.blockon(port.stopListening())


@pytest.fixture
def daemon(tmp_path: Path, silent: Silent) -> Iterator[Running]:
    """A daemon with few connections and one silent source."""
    web = f"""
[[sources]]
name = "web"
plugin = "http"
allow = ["{silent.url}"]
networks = ["127.0.0.0/8"]
"""
    running = Running(tmp_path, web, api=f"connections = {CONNECTIONS}")
    (running.images / "here").write_bytes(noise(1000))
    yield running
    pytest_twisted.blockon(Deferred.fromCoroutine(running.stop()))


def post(daemon: Running, image: str, token: str = "ann") -> Deferred[Answer]:
    """Request a volume."""
    tenant = TENANT if token == "ann" else OTHER_TENANT
    wanted = {"volume": {"size": 1, "imageRef": image}}
    path = f"/v1.1/{tenant}/os-volumes"
    return Deferred.fromCoroutine(daemon.request("POST", path, wanted, token))


def refused(answer: Answer) -> bool:
    """Return whether a call was refused as one too many; check the complete answer."""
    if answer.status != 503 or "Too many calls" not in answer.json["serviceUnavailable"]["message"]:
        return False
    assert answer.headers["retry-after"] == "5"
    assert answer.json["serviceUnavailable"]["code"] == 503
    return True


@ensureDeferred
async def test_a_silent_image_server_locks_nobody_out(daemon: Running, silent: Silent) -> None:
    """Other tenants are answered, and so are quick calls of the same tenant.

    Break: `src/bootvol/service/images.py`: `self._in_flight[name].hold(caller.tenant, question)` -> `Deferred.fromCoroutine(question())`
    """  # noqa: E501
    asked = [post(daemon, f"{silent.url}{number}") for number in range(CONNECTIONS - 4)]
    await silent.has(OF_A_TENANT)
    told = [each for each in asked if each.called]
    while len(told) < len(asked) - OF_A_TENANT:
        await DeferredList([each for each in asked if not each.called], fireOnOneCallback=True)
        told = [each for each in asked if each.called]
    assert all(map(refused, await gatherResults(told)))
    # Neither the other tenant waits nor, for quick calls, the same one.
    for token in ("bob", "ann"):
        assert (await post(daemon, "here", token)).status == 200
    other = post(daemon, f"{silent.url}bob", "bob")
    await silent.has(OF_A_TENANT + 1)
    assert not other.called
    silent.end()
    waited = await gatherResults([other, *(each for each in asked if each not in told)])
    assert not any(map(refused, waited))
    # All places are free again.
    silent.ended = False
    again = [post(daemon, f"{silent.url}again") for _ in range(OF_A_TENANT)]
    await silent.has(OF_A_TENANT)
    silent.end()
    await gatherResults(again)


@ensureDeferred
async def test_who_leaves_keeps_the_place_until_the_call_has_ended(
    daemon: Running, silent: Silent
) -> None:
    """A client that closes its connections gets no more places.

    Break: `src/bootvol/api/http.py`: `to_the_end(Deferred.fromCoroutine(call))` -> `Deferred.fromCoroutine(call)`
    """  # noqa: E501
    asked = [post(daemon, f"{silent.url}{number}") for number in range(OF_A_TENANT)]
    await silent.has(OF_A_TENANT)
    for each in asked:
        each.addErrback(lambda _cancelled: None)
        each.cancel()
    while daemon.site.at_work:
        await pause(0.02)
    assert refused(await post(daemon, f"{silent.url}more"))
    assert len(silent.connections) == OF_A_TENANT


@ensureDeferred
async def test_lists_of_one_tenant_keep_no_other_from_the_database(
    daemon: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a tenant requests many long lists, another tenant's list waits for none of them.

    Break: `src/bootvol/fair_share.py`: `self._held[asker] < self._most` -> `True`
    """
    plain, may_go_on = volumes.listed, threading.Event()

    def listed(connection: Any, tenant: str, **more: Any) -> Any:
        if tenant == TENANT:
            may_go_on.wait(LIMIT)
        return plain(connection, tenant, **more)

    monkeypatch.setattr(volumes, "listed", listed)
    paths = [f"/v1.1/{TENANT}/os-volumes?limit={limit}" for limit in range(1, 6)]
    paths += [f"/v2/{TENANT}/volumes?limit={limit}" for limit in range(1, 6)]
    asked = [Deferred.fromCoroutine(daemon.request("GET", path)) for path in paths]
    try:
        await pause(0.2)
        path = f"/v1.1/{OTHER_TENANT}/os-volumes"
        other = Deferred.fromCoroutine(daemon.request("GET", path, token="bob"))
        await until(lambda: other.called)
        assert not any(each.called for each in asked)
    finally:
        may_go_on.set()
    assert {answer.status for answer in await gatherResults([other, *asked])} == {200}


@ensureDeferred
async def test_writes_of_one_tenant_hold_no_other_up(
    daemon: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a tenant requests many changes, another tenant's change is among the next two.

    Break: `src/bootvol/api/door.py`: `ASKER.set(found.tenant)` -> `ASKER.set("")`
    """
    ids = {
        token: (await daemon.request("POST", f"/v1.1/{tenant}/os-volumes", blank, token)).json
        for token, tenant in (("ann", TENANT), ("bob", OTHER_TENANT))
        for blank in ({"volume": {"size": 1}},)
    }
    plain, may_go_on = volumes.change, threading.Event()
    changed: list[int] = []

    def change(connection: Any, number: int, values: Any) -> None:
        may_go_on.wait(LIMIT)
        changed.append(number)
        plain(connection, number, values)

    monkeypatch.setattr(volumes, "change", change)

    def rename(token: str, tenant: str) -> Deferred[Answer]:
        path = f"/v2/{tenant}/volumes/{ids[token]['volume']['id']}"
        body = {"volume": {"display_name": "new"}}
        return Deferred.fromCoroutine(daemon.request("PUT", path, body, token))

    asked = [rename("ann", TENANT) for _ in range(8)]
    try:
        while daemon.site.at_work < len(asked):
            await pause(0.02)
        asked.append(rename("bob", OTHER_TENANT))
        while daemon.site.at_work < len(asked):
            await pause(0.02)
    finally:
        may_go_on.set()
    assert {answer.status for answer in await gatherResults(asked)} == {200}
    assert changed.index(ids["bob"]["volume"]["id"]) <= 2


@ensureDeferred
async def test_key_pairs_of_one_tenant_hold_no_other_up(
    daemon: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One key pair of a tenant is made at a time, beside one of another tenant's.

    Break: `src/bootvol/service/keypairs.py`: `_AT_ONCE: Final = 2` -> `_AT_ONCE: Final = 9`.
    """
    plain, may_go_on = keypairs._made, threading.Event()
    making: list[int] = []

    def made() -> tuple[str, str]:
        making.append(1)
        may_go_on.wait(LIMIT)
        return plain()

    monkeypatch.setattr(keypairs, "_made", made)

    def make(name: str, token: str, tenant: str) -> Deferred[Answer]:
        body = {"keypair": {"name": name}}
        path = f"/v1.1/{tenant}/os-keypairs"
        return Deferred.fromCoroutine(daemon.request("POST", path, body, token))

    try:
        asked = [make(f"key {number}", "ann", TENANT) for number in range(4)]
        while daemon.site.at_work < len(asked):
            await pause(0.02)
        await pause(0.1)
        assert len(making) == 1
        asked.append(make("key", "bob", OTHER_TENANT))
        while len(making) < 2:
            await pause(0.02)
    finally:
        may_go_on.set()
    assert {answer.status for answer in await gatherResults(asked)} == {200}


@ensureDeferred
async def test_a_disk_that_keeps_no_revocation_takes_few_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow disk holds few of one user's calls that revoke tokens; the other calls get 503.

    Break: `src/bootvol/api/keystone/v3.py`: `with
    context.services.revoking.place(session.user.id):` -> `if session:`.
    """
    plain, may_go_on = files.replace, threading.Event()

    def replace(path: Path, content: bytes) -> None:
        may_go_on.wait(LIMIT)
        plain(path, content)

    daemon = Running(tmp_path, identity=PEOPLE, api=f"connections = {CONNECTIONS}")
    try:
        tokens = [await log_in(daemon) for _ in range(6)]
        monkeypatch.setattr(files, "replace", replace)
        asked = [
            Deferred.fromCoroutine(
                daemon.request(
                    "DELETE",
                    "/identity/v3/auth/tokens",
                    token=each,
                    headers={"X-Subject-Token": each},
                )
            )
            for each in tokens
        ]
        await until(lambda: sum(each.called for each in asked) == 3)
        told = [each for each in asked if each.called]
        assert [answer.status for answer in await gatherResults(told)] == [503] * 3
        may_go_on.set()
        rest = [each for each in asked if each not in told]
        assert [answer.status for answer in await gatherResults(rest)] == [204] * 3
    finally:
        may_go_on.set()
        await daemon.stop()


async def log_in(daemon: Running) -> str:
    """Return a token for ann."""
    credentials = {"username": "ann", "password": PASSWORD}
    answer = await daemon.request(
        "POST",
        "/v2.0/tokens",
        {"auth": {"passwordCredentials": credentials, "tenantName": "demo"}},
        token=None,
    )
    return str(answer.json["access"]["token"]["id"])
