"""The daemons and backends as operators of the Block Storage API see them; types and encryption."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred

from bootvol.model import GIB
from bootvol.testing.backends import noise
from tests.cinder import PEOPLE, ask, daemon, made, settled
from tests.daemons import TENANT, Running
from tests.waiting import until

__all__ = ["daemon"]


@ensureDeferred
async def test_services_are_the_daemons_and_their_stores(daemon: Running) -> None:
    """A daemon announces itself; the backend of the test is for its host only."""

    async def listed(query: str = "") -> list[dict[str, object]]:
        answer = await ask(daemon, "GET", f"os-services{query}", who="admin")
        found: list[dict[str, object]] = answer.json["services"]
        return found

    volume, scheduler = await until(
        listed, lambda found: [each.get("backend_state") for each in found] == ["up", None]
    )
    assert (volume["binary"], scheduler["binary"]) == ("cinder-volume", "cinder-scheduler")
    assert (volume["state"], volume["status"], volume["backend_state"]) == ("up", "enabled", "up")
    assert volume["host"] == f"{scheduler['host']}@local"
    before = datetime.now(UTC) - timedelta(hours=1)
    for each in (volume, scheduler):
        assert datetime.fromisoformat(f"{each['updated_at']}+00:00") > before
    uuid = await made(daemon, "volume", size=1)
    shown = (await ask(daemon, "GET", f"volumes/{uuid}", who="admin")).json["volume"]
    (again, _) = await listed()
    assert str(again["updated_at"]) >= shown["created_at"]
    assert shown["os-vol-host-attr:host"] == f"{volume['host']}#local"
    for query, number in (
        ("?binary=cinder-volume", 1),
        (f"?host={volume['host']}", 1),
        (f"?host={scheduler['host']}", 2),
        ("?host=nosuch", 0),
    ):
        assert len(await listed(query)) == number
    early = await ask(daemon, "GET", "os-services", who="admin", version="3.6")
    assert {"cluster", "backend_state"}.isdisjoint(early.json["services"][0])
    on = {"host": volume["host"], "binary": "cinder-volume"}
    answer = await ask(daemon, "PUT", "os-services/enable", on, who="admin")
    assert (answer.status, answer.json["status"]) == (200, "enabled")
    for body, status in (({"host": "x", "binary": "cinder-volume"}, 404), ({}, 400)):
        assert (await ask(daemon, "PUT", "os-services/enable", body, who="admin")).status == status
    for name in ("freeze", "thaw", "failover_host", "get-log"):
        told = {**on, "disabled_reason": "r"}
        refused = await ask(daemon, "PUT", f"os-services/{name}", told, who="admin")
        assert (refused.status, "notImplemented" in refused.json) == (501, True)
    for name, wrong, status in (
        ("disable", {"binary": "none"}, 404),
        ("disable-log-reason", {"disabled_reason": None}, 400),
        ("disable-log-reason", {"host": "none", "disabled_reason": "r"}, 404),
        ("freeze", {"host": "none"}, 400),
        ("thaw", {"host": 5}, 400),
    ):
        answer = await ask(daemon, "PUT", f"os-services/{name}", {**on, **wrong}, who="admin")
        assert answer.status == status, name
    cleaned = await ask(daemon, "POST", "workers/cleanup", {}, who="admin")
    assert (cleaned.status, cleaned.json) == (202, {"cleaning": [], "unavailable": []})


@ensureDeferred
async def test_a_disabled_service_begins_no_volumes(tmp_path: Path, state: str) -> None:
    """Neither blank volumes nor imports begin; all other work goes on.

    Break: `src/bootvol/store/import_queue.py`: `disabled.begins(line, claims.HOST),` -> ``
    Break: `src/bootvol/store/work_queue.py`: `disabled.begins(volumes, claims.HOST),
        volumes.c.image_id.is_(None),` -> `volumes.c.image_id.is_(None),`
    """
    daemon = Running(tmp_path, state=state, identity=PEOPLE)
    (daemon.images / "disk").write_bytes(noise(1000))
    try:
        former = await made(daemon, "volume", size=1)
        services = (await ask(daemon, "GET", "os-services", who="admin")).json["services"]
        for each, reason in zip(services, ("why", None), strict=True):
            named: dict[str, object] = {"host": each["host"], "binary": each["binary"]}
            call = "disable"
            more: dict[str, object] = {"status": "disabled", "disabled": True}
            if reason is not None:
                named["disabled_reason"] = more["disabled_reason"] = reason
                call = "disable-log-reason"
            answer = await ask(daemon, "PUT", f"os-services/{call}", named, who="admin")
            told = {"host": each["host"], "service": "", "binary": each["binary"], **more}
            assert (answer.status, answer.json) == (200, told)
            shown = (await ask(daemon, "GET", "os-services", who="admin")).json["services"]
            found = next(one for one in shown if one["binary"] == each["binary"])
            assert (found["status"], found["disabled_reason"]) == ("disabled", reason)
            waiting = []
            for image in ({}, {"imageRef": "disk"}):
                body = {"volume": {"size": 1, **image}}
                answer = await ask(daemon, "POST", "volumes", body)
                waiting.append(answer.json["volume"]["id"])
            # Work on other volumes goes on meanwhile.
            await made(daemon, "snapshot", volume_id=former)
            for uuid in waiting:
                shown = (await ask(daemon, "GET", f"volumes/{uuid}")).json["volume"]
                assert shown["status"] == "creating"
                error = (await daemon.call("GET", f"os-volumes/{uuid}/error")).json["error"]
                assert error["code"] == "service-disabled"
            await ask(daemon, "PUT", "os-services/enable", named, who="admin")
            for uuid in waiting:
                await settled(daemon, "volume", uuid)
    finally:
        await daemon.stop()


@ensureDeferred
async def test_pools_tell_the_space_of_their_disks(daemon: Running) -> None:
    """Break: `src/bootvol/api/cinder/pools.py`: `round(room.free / GIB, 2)` -> `0.0`."""
    uuid = await made(daemon, "volume", size=2)
    await made(daemon, "snapshot", volume_id=uuid)
    path = "scheduler-stats/get_pools"
    # The daemon has checked the store by now: volumes were made.
    (brief,) = (await ask(daemon, "GET", path, who="admin")).json["pools"]
    (pool,) = (await ask(daemon, "GET", f"{path}?detail=True", who="admin")).json["pools"]
    assert list(brief) == ["name"]
    figures = pool["capabilities"]
    disk = os.statvfs(daemon.volumes)
    assert figures["total_capacity_gb"] == round(disk.f_blocks * disk.f_frsize / GIB, 2)
    # Others use the disk, too.
    free = disk.f_bavail * disk.f_frsize / GIB
    assert figures["free_capacity_gb"] == pytest.approx(free, abs=max(1.0, free / 4))
    assert (figures["allocated_capacity_gb"], figures["backend_state"]) == (2, "up")
    named = f"{path}?name={brief['name'].replace('#', '%23')}"
    assert len((await ask(daemon, "GET", named, who="admin")).json["pools"]) == 1
    assert (await ask(daemon, "GET", f"{path}?name=x", who="admin")).json == {"pools": []}
    service = brief["name"].partition("#")[0]
    for host in (service, brief["name"].replace("#", "%23")):
        shown = await ask(daemon, "GET", f"capabilities/{host}", who="admin")
        assert (shown.status, shown.json["volume_backend_name"]) == (200, "local")
    assert (await ask(daemon, "GET", "capabilities/x", who="admin")).status == 404
    hosts = (await ask(daemon, "GET", "os-hosts", who="admin")).json["hosts"]
    assert service in [each["host_name"] for each in hosts]
    shown = (await ask(daemon, "GET", f"os-hosts/{service}", who="admin")).json["host"]
    total, mine = (each["resource"] for each in shown)
    assert (total["project"], mine["project"]) == ("(total)", TENANT)
    assert (mine["volume_count"], mine["total_volume_gb"]) == ("1", "2")
    assert (mine["snapshot_count"], mine["total_snapshot_gb"]) == ("1", "2")
    # Without its directory, the backend tells nothing.
    daemon.volumes.rename(daemon.volumes.with_name("away"))
    (pool,) = (await ask(daemon, "GET", f"{path}?detail=True", who="admin")).json["pools"]
    assert pool["capabilities"]["free_capacity_gb"] == "unknown"
    daemon.volumes.with_name("away").rename(daemon.volumes)


@ensureDeferred
async def test_a_type_with_volumes_stays_and_its_name_follows(daemon: Running) -> None:
    """Break: `src/bootvol/service/volume_types.py`: `if unused and volume_rows.has_type(db,
    found.name):` -> `if False:`.
    """
    body = {"volume_type": {"name": "fast"}}
    answer = await ask(daemon, "POST", "types", body, who="admin")
    path = f"types/{answer.json['volume_type']['id']}"
    uuid = await made(daemon, "volume", size=1, volume_type="fast")
    refused = await ask(daemon, "DELETE", path, who="admin")
    words = "Target volume type is still in use."
    assert (refused.status, refused.json["badRequest"]["message"]) == (400, words)
    await ask(daemon, "PUT", path, {"volume_type": {"name": "faster"}}, who="admin")
    shown = (await ask(daemon, "GET", f"volumes/{uuid}")).json["volume"]
    assert (shown["volume_type"], f"types/{shown['volume_type_id']}") == ("faster", path)
    assert (await ask(daemon, "DELETE", f"volumes/{uuid}")).status == 202
    await until(partial(ask, daemon, "GET", f"volumes/{uuid}"), lambda found: found.status == 404)
    assert (await ask(daemon, "DELETE", path, who="admin")).status == 202
