"""A daemon with callers from a real Keystone, and their rights."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, gatherResults

from tests.daemons import Answer, Running
from tests.openstack.identity import Keystone
from tests.openstack.people import People
from tests.waiting import until

WANTED = {"volume": {"size": 1}}


@pytest.fixture(scope="module")
def people(keystone: Keystone) -> People:
    """The users of these tests."""
    return People.of(keystone)


@pytest_twisted.async_yield_fixture
async def daemon(people: People, tmp_path: Path) -> AsyncIterator[Running]:
    """A daemon that asks Keystone for each call, with a short timeout."""
    daemon = Running(tmp_path, identity=people.table(cache_seconds=0.0, timeout=3.0))
    yield daemon
    await daemon.stop()


@pytest_twisted.async_yield_fixture
async def remembering(people: People, tmp_path: Path) -> AsyncIterator[Running]:
    """A daemon that caches Keystone's answers."""
    folder = tmp_path / "remembering"
    folder.mkdir()
    daemon = Running(folder, identity=people.table(timeout=3.0), api="connections = 40")
    yield daemon
    await daemon.stop()


async def call(
    daemon: Running, people: People, token: str | None, method: str, path: str, body: object = None
) -> Answer:
    """Send a request about demo's resources."""
    return await daemon.request(method, f"/v1.1/{people.projects['demo']}/{path}", body, token)


async def status(daemon: Running, people: People, token: str) -> int:
    """Return the status of a list of demo's volumes."""
    return (await call(daemon, people, token, "GET", "os-volumes")).status


@ensureDeferred
async def test_a_project_is_a_tenant(daemon: Running, people: People) -> None:
    token = people.token("bob")
    made = await call(daemon, people, token, "POST", "os-volumes", WANTED)
    number = made.json["volume"]["id"]
    listed = await call(daemon, people, people.token("ann"), "GET", "os-volumes")
    assert [each["id"] for each in listed.json["volumes"]] == [number]
    other, path = people.token("ann", "other"), f"/v1.1/{people.projects['other']}/os-volumes"
    assert (await daemon.request("GET", path, token=other)).json == {"volumes": []}
    # The other project's path does not help.
    assert await status(daemon, people, other) == 400


@pytest.mark.parametrize(
    ("user", "expected"), [("eve", (200, 403, 403)), ("bob", (200, 200, 403)), ("ann", (200,) * 3)]
)
@ensureDeferred
async def test_roles_give_rights(
    daemon: Running, people: People, user: str, expected: tuple[int, ...]
) -> None:
    token = people.token(user)
    quota = f"os-quota-sets/{people.projects['demo']}"
    answers = [
        await call(daemon, people, token, "GET", "os-volumes"),
        await call(daemon, people, token, "POST", "os-volumes", WANTED),
        await call(daemon, people, token, "PUT", quota, {"quota_set": {}}),
    ]
    assert tuple(each.status for each in answers) == expected


@ensureDeferred
async def test_a_token_without_a_project_is_told_so(daemon: Running, people: People) -> None:
    answer = await call(daemon, people, people.token("ann", None), "GET", "os-volumes")
    message = "This token is not for a project; log in for a project."
    assert answer.status == 401
    assert answer.json == {"unauthorized": {"code": 401, "message": message}}


@ensureDeferred
async def test_who_is_not_known(daemon: Running, people: People) -> None:
    revoked = people.token("ann")
    assert await status(daemon, people, revoked) == 200
    people.keystone.revoke(revoked)
    for token in (None, "x", "\u00e9", "x" * 8000, f"{people.token('ann')}x", revoked):
        answer = await call(daemon, people, token, "GET", "os-volumes")
        assert answer.status == 401, token
        assert "unauthorized" in answer.json


@ensureDeferred
async def test_a_keystone_that_does_not_answer(daemon: Running, people: People) -> None:
    token = people.token("ann")
    assert await status(daemon, people, token) == 200
    with people.keystone.stopped():
        asked = [
            Deferred.fromCoroutine(call(daemon, people, each, "GET", "os-volumes"))
            for each in (token, "nobody's")
        ]
        for answer in await gatherResults(asked):
            assert answer.status == 503
            assert answer.headers["retry-after"] == "5"
            message = "Tokens cannot be verified for now; try again later."
            assert answer.json == {"serviceUnavailable": {"code": 503, "message": message}}
    assert await status(daemon, people, token) == 200


@ensureDeferred
async def test_a_keystone_that_is_gone(
    daemon: Running, remembering: Running, people: People
) -> None:
    token, other = people.token("ann"), people.token("bob")
    assert await status(remembering, people, token) == 200
    people.keystone.kill()
    try:
        assert await status(daemon, people, token) == 503
        # Cached answers stay valid for their usual time.
        assert await status(remembering, people, token) == 200
        assert await status(remembering, people, other) == 503
    finally:
        people.keystone.start()
    assert await status(daemon, people, token) == 200
    assert await status(remembering, people, other) == 200


@ensureDeferred
async def test_made_up_tokens_and_a_keystone_that_hangs(
    remembering: Running, people: People
) -> None:
    """Few invented tokens wait; a known token at the same address, and other addresses, are served.

    Break: `src/bootvol/api/door.py`: `self._strangers.through(address(request),
    authenticating)` -> `authenticating`
    Break: `src/bootvol/service/inflight.py`: `if running.called:` -> `if False:`
    """
    token, other = people.token("ann"), people.token("bob")
    path = f"/v1.1/{people.projects['demo']}/os-volumes"
    assert await status(remembering, people, token) == 200
    with people.keystone.stopped():
        made_up = [
            Deferred.fromCoroutine(remembering.request("GET", path, token=f"made-up-{number}"))
            for number in range(30)
        ]
        waiting = await until(
            lambda: [each for each in made_up if not each.called], lambda left: len(left) <= 3
        )
        assert 1 <= len(waiting) <= 3
        assert await status(remembering, people, token) == 200
        elsewhere = await remembering.request("GET", path, token=other, address="127.0.0.2")
        answers = await gatherResults(made_up)
    told = [each.json["serviceUnavailable"]["message"] for each in answers]
    assert "verified" in elsewhere.json["serviceUnavailable"]["message"], "that one had a place"
    assert sum("verified" in each for each in told) == len(waiting)
    assert sum("Too many calls" in each for each in told) == 30 - len(waiting)
    assert await status(remembering, people, other) == 200


@ensureDeferred
async def test_only_a_service_of_keystone_frees_its_servers_volumes(
    daemon: Running, people: People
) -> None:
    """A user's second token does not speak for a service, and neither does an expired one."""
    root, bob = f"/volume/v3/{people.projects['demo']}", people.token("bob")

    async def send(method: str, path: str, body: object = None, service: str = "") -> Answer:
        headers = {"OpenStack-API-Version": "volume 3.44"}
        if service:
            headers["X-Service-Token"] = service
        return await daemon.request(method, f"{root}/{path}", body, bob, headers)

    made = await send("POST", "volumes", {"volume": {"size": 1}})
    volume = made.json["volume"]["id"]

    async def status() -> str:
        return str((await send("GET", f"volumes/{volume}")).json["volume"]["status"])

    await until(status, lambda found: found == "available")
    body = {
        "attachment": {
            "volume_uuid": volume,
            "instance_uuid": "aaaaaaaa-0000-4000-8000-000000000001",
            "connector": {"host": "compute1"},
        }
    }
    path = f"attachments/{(await send('POST', 'attachments', body)).json['attachment']['id']}"
    assert (await send("DELETE", path)).status == 409
    assert (await send("DELETE", path, service=people.token("ann"))).status == 409
    ended = people.token("bootvol", "service")
    people.keystone.revoke(ended)
    assert (await send("DELETE", path, service=ended)).status == 401
    assert await status() == "attaching"
    answer = await send("DELETE", path, service=people.token("bootvol", "service"))
    assert (answer.status, answer.json) == (200, {"attachments": []})
    assert await status() == "available"
