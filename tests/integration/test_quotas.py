"""Quotas and limits over a socket: shown, set with the right, and exact."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, gatherResults

from tests.daemons import OTHER_TENANT, TENANT, Answer, Running
from tests.integration.test_faults import NOT_FOUND, fault
from tests.integration.test_volume_types import a_snapshot

SETS = "os-quota-sets"
DEFAULT = {"volumes": 10, "gigabytes": 1000, "snapshots": 10, "instances": 10, "key_pairs": 100}
FORBIDDEN = (403, "resizeNotAllowed", "Access was denied to this resource.")
EXCEEDED = "Volume quota exceeded. You cannot create a volume of size {}G"


async def put(daemon: Running, tenant: str = TENANT, token: str = "root", **bounds: Any) -> Answer:
    """Set quotas."""
    return await daemon.call("PUT", f"{SETS}/{tenant}", {"quota_set": bounds}, token)


async def shown(daemon: Running, tenant: str = TENANT, token: str = "root") -> Any:
    """Return a tenant's quotas."""
    answer = await daemon.call("GET", f"{SETS}/{tenant}", None, token)
    assert answer.status == 200, answer
    return answer.json["quota_set"]


@ensureDeferred
async def test_quotas_are_shown_and_set(running: Running) -> None:
    assert await shown(running, token="ann") == {"id": TENANT, **DEFAULT}
    changed = await put(running, volumes=3, snapshots="-1", cores=5, tenant_id="x", ram=None)
    expected = {**DEFAULT, "volumes": 3, "snapshots": -1}
    assert (changed.status, changed.json) == (200, {"quota_set": expected})
    assert (await put(running, volumes=4, gigabytes=None)).json["quota_set"]["volumes"] == 4
    assert (await put(running)).json == {"quota_set": {**expected, "volumes": 4}}
    assert await shown(running, token="ann") == {"id": TENANT, **expected, "volumes": 4}
    # Other tenants still have the default, and only admins see the quotas.
    assert await shown(running, OTHER_TENANT) == {"id": OTHER_TENANT, **DEFAULT}
    assert (await put(running, OTHER_TENANT, volumes=0, instances=0)).status == 200
    own = await running.request("GET", f"/v1.1/{OTHER_TENANT}/{SETS}/{OTHER_TENANT}", token="bob")
    assert own.json["quota_set"] == {
        **DEFAULT,
        "id": OTHER_TENANT,
        "volumes": 0,
        "instances": 0,
        "key_pairs": 100,
    }
    defaults = await running.call("GET", f"{SETS}/{TENANT}/defaults")
    assert defaults.json == {"quota_set": {"id": TENANT, **DEFAULT}}


@ensureDeferred
async def test_quotas_outlive_the_daemon(tmp_path: Path) -> None:
    daemon = Running(tmp_path)
    await put(daemon, volumes=3)
    await daemon.stop()
    daemon = Running(tmp_path, "[quota]\nvolumes = 7\ngigabytes = 8")
    assert await shown(daemon) == {**DEFAULT, "id": TENANT, "volumes": 3, "gigabytes": 8}
    await daemon.stop()


WHOLE = "Invalid input received: a quota limit must be an integer of at most 2147483647"
NO_NUMBERS: list[Any] = ["x", "", 1.5, True, [], 2**31, "9" * 30]
NO_SETS: list[Any] = [None, [], "x", 3]
UNPROCESSABLE = (422, "cloudServersFault", "Unable to process the contained instructions")
WRONG: list[tuple[str, str, Any, tuple[int, str, str]]] = [
    ("root", TENANT, {"volumes": -2}, (400, "badRequest", "Quota limit must be -1 or greater.")),
    ("root", TENANT, {"volumes": "-2"}, (400, "badRequest", "Quota limit must be -1 or greater.")),
    *(("root", TENANT, {"gigabytes": bad}, (400, "badRequest", WHOLE)) for bad in NO_NUMBERS),
    *(("root", TENANT, bad, UNPROCESSABLE) for bad in NO_SETS),
    ("root", "%00", {"volumes": 1}, NOT_FOUND),
    ("root", "x" * 256, {"volumes": 1}, NOT_FOUND),
    ("ann", TENANT, {"volumes": 100}, FORBIDDEN),
    ("ann", OTHER_TENANT, {"volumes": 100}, FORBIDDEN),
]


@ensureDeferred
async def test_what_is_wrong_is_told_and_changes_nothing(running: Running) -> None:
    for token, tenant, quota_set, expected in WRONG:
        body = {"quota_set": quota_set}
        answer = await running.call("PUT", f"{SETS}/{tenant}", body, token)
        assert fault(answer) == expected, body
    assert await shown(running) == {"id": TENANT, **DEFAULT}
    assert fault(await running.call("GET", f"{SETS}/{OTHER_TENANT}")) == FORBIDDEN
    assert fault(await running.call("GET", f"{SETS}/%00", None, "root")) == NOT_FOUND
    assert fault(await running.call("GET", f"{SETS}/%00/defaults")) == NOT_FOUND


@ensureDeferred
async def test_a_quota_holds_from_the_next_call_on(running: Running) -> None:
    async def refused(size: int) -> bool:
        answer = await running.call("POST", "os-volumes", {"volume": {"size": size}})
        if answer.status == 200:
            return False
        assert fault(answer) == (413, "overLimit", EXCEEDED.format(size))
        return True

    await put(running, gigabytes=5)
    assert await refused(6)
    assert not await refused(5)
    assert await refused(1)
    await put(running, gigabytes=-1, volumes=1)
    assert await refused(1)
    await put(running, volumes=-1)
    assert not await refused(5000)
    await put(running, volumes=0)
    assert await refused(1)


@ensureDeferred
async def test_snapshots_have_a_quota(running: Running) -> None:
    await put(running, snapshots=1)
    number = await running.create()
    await running.until(number, "available")
    await a_snapshot(running, number)
    wanted = {"snapshot": {"volume_id": number}}
    assert fault(await running.call("POST", "os-snapshots", wanted)) == (
        413,
        "overLimit",
        "Snapshot quota exceeded. You cannot create another snapshot",
    )
    absolute = (await running.call("GET", "limits")).json["limits"]["absolute"]
    assert (absolute["maxTotalSnapshots"], absolute["totalSnapshotsUsed"]) == (1, 1)


@ensureDeferred
async def test_limits(running: Running) -> None:
    assert (await running.call("GET", "limits")).json == {
        "limits": {
            "rate": [],
            "absolute": {
                "maxTotalVolumes": 10,
                "maxTotalVolumeGigabytes": 1000,
                "maxTotalSnapshots": 10,
                "maxTotalInstances": 10,
                "maxTotalKeypairs": 100,
                "maxServerMeta": 128,
                "totalVolumesUsed": 0,
                "totalVolumeGigabytesUsed": 0,
                "totalSnapshotsUsed": 0,
                "totalInstancesUsed": 0,
            },
        }
    }
    await put(running, volumes=-1, gigabytes=7, snapshots=-1, instances=-1)
    await running.create(size=3)
    await running.create(size=4)
    assert (await running.call("GET", "limits")).json["limits"]["absolute"] == {
        "maxTotalVolumeGigabytes": 7,
        "maxTotalKeypairs": 100,
        "maxServerMeta": 128,
        "totalVolumesUsed": 2,
        "totalVolumeGigabytesUsed": 7,
        "totalSnapshotsUsed": 0,
        "totalInstancesUsed": 0,
    }


@pytest_twisted.async_yield_fixture
async def daemon(state: str, tmp_path: Path) -> AsyncIterator[Running]:
    """A daemon with generous defaults, once with each kind of database."""
    daemon = Running(tmp_path, "[quota]\nvolumes = 1000", state)
    yield daemon
    await daemon.stop()


@ensureDeferred
async def test_it_is_exact_and_given_back(daemon: Running) -> None:
    await put(daemon, volumes=10)

    async def made() -> list[int]:
        asked = [daemon.call("POST", "os-volumes", {"volume": {"size": 1}}) for _ in range(200)]
        answers = await gatherResults([Deferred.fromCoroutine(each) for each in asked])
        # On a busy machine, the last of so many calls may wait too long for the database.
        assert {200, 413} <= {answer.status for answer in answers} <= {200, 413, 503}
        return [answer.json["volume"]["id"] for answer in answers if answer.status == 200]

    first = await made()
    assert len(first) == 10
    for number in first[:4]:
        await daemon.until(number, "available")
        assert (await daemon.call("DELETE", f"os-volumes/{number}")).status == 202
        await daemon.until(number, "gone")
    assert len(await made()) == 4
    absolute = (await daemon.call("GET", "limits")).json["limits"]["absolute"]
    assert (absolute["maxTotalVolumes"], absolute["totalVolumesUsed"]) == (10, 10)


@ensureDeferred
async def test_a_volume_has_so_many_items_of_metadata(running: Running) -> None:
    many = {str(number): "x" for number in range(129)}
    answer = await running.call("POST", "os-volumes", {"volume": {"size": 1, "metadata": many}})
    assert answer.status == 413
    assert "128" in answer.json["overLimit"]["message"]
    many.popitem()
    made = await running.call("POST", "os-volumes", {"volume": {"size": 1, "metadata": many}})
    assert made.status == 200
    path = f"/v2/{TENANT}/volumes/{made.json['volume']['id']}"
    more = {"volume": {"metadata": {**many, "one": "more"}}}
    assert (await running.request("PUT", path, more)).status == 413


@pytest.mark.parametrize("counted", [True, False])
@ensureDeferred
async def test_snapshots_take_of_gigabytes(tmp_path: Path, counted: bool) -> None:
    table = f"[quota]\ngigabytes = 5\nsnapshots_in_gigabytes = {str(counted).lower()}\n"
    daemon = Running(tmp_path, table)
    try:
        volume = await daemon.create(size=2)
        await daemon.until(volume, "available")
        await a_snapshot(daemon, volume)
        limits = (await daemon.call("GET", "limits")).json["limits"]["absolute"]
        assert limits["totalVolumeGigabytesUsed"] == (4 if counted else 2)
        body = {"snapshot": {"volume_id": volume}}
        answer = await daemon.call("POST", "os-snapshots", body)
        assert answer.status == (413 if counted else 200)
        new = await daemon.call("POST", "os-volumes", {"volume": {"size": 2}})
        assert new.status == (413 if counted else 200)
        if not counted:
            # Requests without a size succeed, even without any quota left.
            assert (await put(daemon, gigabytes=0)).status == 200
            assert (await daemon.call("POST", "os-snapshots", body)).status == 200
    finally:
        await daemon.stop()
