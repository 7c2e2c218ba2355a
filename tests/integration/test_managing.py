"""Operators take the disks of other programs over, and give volumes up, by Cinder's calls."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest
from pytest_twisted import ensureDeferred

from bootvol.api.cinder import microversions
from bootvol.api.cinder.microversions import Microversion
from bootvol.errors import BackendFailed, BackendInterrupted
from bootvol.model import GIB
from bootvol.testing.backends import noise
from bootvol_plugins.file import FileBackend
from bootvol_plugins.file_store import STORE
from tests.cinder import ADMIN, PEOPLE, ask, daemon, made
from tests.daemons import Running
from tests.waiting import until

__all__ = ["daemon"]

CONTENT = noise(100_000)
#: The members of the answers as recorded (11-cinderclient).
VOLUME = {
    *("id", "status", "size", "availability_zone", "created_at", "updated_at", "name"),
    *("description", "volume_type", "snapshot_id", "source_volid", "metadata", "links"),
    *("user_id", "bootable", "encrypted", "replication_status", "consistencygroup_id"),
    *("multiattach", "attachments", "migration_status"),
}
SNAPSHOT = {
    *("id", "created_at", "updated_at", "name", "description", "volume_id", "status", "size"),
    "metadata",
}


def put(daemon: Running, name: str | None = None, size: int = 2 * GIB) -> str:
    """Put a file into the backend's directory, as Cinder names files; return the name."""
    name = name or f"volume-{uuid4()}"
    (daemon.volumes / name).write_bytes(CONTENT)
    os.truncate(daemon.volumes / name, size)
    return name


def files(daemon: Running) -> set[str]:
    """Return the names of all files in the backend's directory."""
    return {each.name for each in daemon.volumes.iterdir()} - {STORE}


async def host(daemon: Running) -> str:
    """Return the backend in Cinder's form."""
    volume = await made(daemon, "volume", size=1)
    shown = (await ask(daemon, "GET", f"volumes/{volume}", who="admin")).json["volume"]
    await ask(daemon, "DELETE", f"volumes/{volume}")
    await gone(daemon, f"volumes/{volume}")
    return str(shown["os-vol-host-attr:host"])


async def manage(daemon: Running, place: str, **members: object) -> dict[str, Any]:
    """Ask for a file to be taken over; return the answer's volume."""
    wanted = {"host": await host(daemon), "ref": {"source-name": place}, **members}
    answer = await ask(daemon, "POST", "os-volume-manage", {"volume": wanted}, who="admin")
    assert answer.status == 202, answer
    return dict(answer.json["volume"])


async def settled(daemon: Running, path: str, *wanted: str) -> dict[str, Any]:
    """Wait until an object has one of the statuses; return the object."""

    async def show() -> dict[str, Any]:
        (found,) = (await ask(daemon, "GET", path, who="admin")).json.values()
        return dict(found)

    return await until(show, lambda found: found["status"] in wanted)


async def gone(daemon: Running, path: str) -> None:
    """Wait until an object is gone."""
    await until(lambda: ask(daemon, "GET", path, who="admin"), lambda found: found.status == 404)


async def act(daemon: Running, path: str, action: str = "os-unmanage", who: str = "admin") -> Any:
    """Send an action without parameters; return the answer."""
    return await ask(daemon, "POST", f"{path}/action", {action: None}, who=who)


async def reason(daemon: Running, number: int = 1) -> dict[str, Any]:
    """Return why the last volume of the operator's project has failed."""
    base = f"/v1.1/{ADMIN}/os-volumes"
    volumes = (await daemon.request("GET", base, token="root")).json["volumes"]
    found = await daemon.request("GET", f"{base}/{volumes[-1]['id']}/error", token="root")
    return dict(found.json["error"])


@ensureDeferred
async def test_a_disk_changes_hands_as_recorded(daemon: Running) -> None:
    place = put(daemon)
    inode = (daemon.volumes / place).stat().st_ino
    shown = await manage(
        daemon, place, name="managed", description=None, volume_type=None, metadata=None,
        availability_zone=None, bootable=True,
    )  # fmt: skip
    assert set(shown) == VOLUME
    assert (shown["status"], shown["size"], shown["name"]) == ("creating", 0, "managed")
    assert (shown["bootable"], shown["volume_type"]) == ("true", "__DEFAULT__")
    path = f"volumes/{shown['id']}"
    found = await settled(daemon, path, "available")
    assert (found["size"], found["os-vol-tenant-attr:tenant_id"]) == (2, ADMIN)
    listed = (await ask(daemon, "GET", "volumes/detail", who="admin")).json["volumes"]
    assert [each["id"] for each in listed] == [shown["id"]]
    (taken,) = daemon.volumes.glob("*.raw")
    assert taken.stat().st_ino == inode
    answer = await act(daemon, path)
    assert (answer.status, answer.body) == (202, b"")
    await gone(daemon, path)
    # The bytes have the name that the documents state.
    assert files(daemon) == {f"volume-{shown['id']}"}
    left = daemon.volumes / f"volume-{shown['id']}"
    assert (left.stat().st_ino, left.read_bytes()[: len(CONTENT)]) == (inode, CONTENT)
    again = await manage(daemon, left.name)
    assert again["id"] != shown["id"]
    assert (await settled(daemon, f"volumes/{again['id']}", "available"))["size"] == 2


@ensureDeferred
async def test_an_unknown_disk_is_an_error_with_a_reason(daemon: Running) -> None:
    shown = await manage(daemon, "nosuchimage")
    path = f"volumes/{shown['id']}"
    assert (await settled(daemon, path, "available", "error"))["status"] == "error"
    found = await reason(daemon)
    assert found["code"] == "disk-not-found"
    assert "nosuchimage" in found["message"]
    # A file that appears later under the name is nobody's.
    put(daemon, "nosuchimage")
    assert (await ask(daemon, "DELETE", path, who="admin")).status == 202
    await gone(daemon, path)
    assert files(daemon) == {"nosuchimage"}


@pytest.mark.parametrize("end", ["DELETE", "os-unmanage"])
@ensureDeferred
async def test_a_disk_that_was_not_taken_over_to_the_end_is_never_deleted(
    daemon: Running, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """After a failure that could not be undone, the disk gets its own name back.

    Break: `src/bootvol/worker/tasks/factories.py`:
    `(removed and subject.place is not None)` -> `False`.
    Break: `src/bootvol/service/replacements.py`: `or volume.place is not None` -> ``.
    """
    adopt, give_up = FileBackend.adopt, FileBackend.give_up

    async def adopted(self: FileBackend, place: str, volume: str, unit: int) -> int:
        await adopt(self, place, volume, unit)
        raise BackendFailed("The disk failed.")

    async def kept(self: FileBackend, volume: str, place: str) -> None:
        raise BackendFailed("The disk failed again.")

    place = put(daemon)
    with monkeypatch.context() as patch:
        patch.setattr(FileBackend, "adopt", adopted)
        patch.setattr(FileBackend, "give_up", kept)
        shown = await manage(daemon, place)
        path = f"volumes/{shown['id']}"
        await settled(daemon, path, "error")
    assert files(daemon) != {place}
    fill = {"os-reimage": {"image_id": "disk"}}
    refused = await ask(daemon, "POST", f"{path}/action", fill, who="admin")
    assert "must be available or error" in refused.json["badRequest"]["message"]
    monkeypatch.setattr(FileBackend, "give_up", give_up)
    if end == "DELETE":
        assert (await ask(daemon, "DELETE", path, who="admin")).status == 202
    else:
        assert (await act(daemon, path)).status == 202
    await gone(daemon, path)
    assert files(daemon) == {place}
    assert (daemon.volumes / place).read_bytes()[: len(CONTENT)] == CONTENT


@ensureDeferred
async def test_a_disk_that_cannot_be_taken_over_stays(daemon: Running) -> None:
    volume = await made(daemon, "volume", size=1)
    (ours,) = files(daemon)
    place = put(daemon)
    (daemon.volumes / "link").symlink_to(daemon.folder / "bootvol.db")
    for refused in (ours, "../bootvol.db", "link"):
        shown = await manage(daemon, refused)
        assert (await settled(daemon, f"volumes/{shown['id']}", "error"))["size"] == 0
        await ask(daemon, "DELETE", f"volumes/{shown['id']}", who="admin")
        await gone(daemon, f"volumes/{shown['id']}")
    with (daemon.volumes / place).open("r+b"):
        shown = await manage(daemon, place)
        await settled(daemon, f"volumes/{shown['id']}", "error")
        assert (await reason(daemon))["code"] == "volume-in-use"
    assert files(daemon) == {ours, place, "link"}
    assert (await ask(daemon, "GET", f"volumes/{volume}")).json["volume"]["status"] == "available"


@ensureDeferred
async def test_two_volumes_of_one_disk_are_one(daemon: Running) -> None:
    place = put(daemon)
    both = [await manage(daemon, place) for _ in range(2)]
    found = [
        (await settled(daemon, f"volumes/{each['id']}", "available", "error"))["status"]
        for each in both
    ]
    assert sorted(found) == ["available", "error"]
    assert len(files(daemon)) == 1


@ensureDeferred
async def test_the_quota_counts_what_is_taken_over(daemon: Running) -> None:
    place, known = put(daemon), await host(daemon)
    quota = {"quota_set": {"volumes": 1, "gigabytes": 1}}
    assert (await ask(daemon, "PUT", f"os-quota-sets/{ADMIN}", quota, who="admin")).status == 200
    body = {"volume": {"host": known, "ref": {"source-name": place}}}
    answer = await ask(daemon, "POST", "os-volume-manage", body, who="admin")
    assert answer.status == 413, answer
    assert files(daemon) == {place}
    quota = {"quota_set": {"volumes": 1, "gigabytes": 2}}
    await ask(daemon, "PUT", f"os-quota-sets/{ADMIN}", quota, who="admin")
    answer = await ask(daemon, "POST", "os-volume-manage", body, who="admin")
    await settled(daemon, f"volumes/{answer.json['volume']['id']}", "available")
    usage = (await ask(daemon, "GET", "limits", who="admin")).json["limits"]["absolute"]
    assert (usage["totalVolumesUsed"], usage["totalGigabytesUsed"]) == (1, 2)


@ensureDeferred
async def test_a_disk_that_grows_meanwhile_is_given_back(
    daemon: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The quota was checked for less.

    Break: `src/bootvol/worker/tasks/adoption.py`: `self._check(self._found)` -> `pass`
    """
    place, adopt = put(daemon, size=1), FileBackend.adopt

    async def adopted(self: FileBackend, place: str, volume: str, unit: int) -> int:
        os.truncate(daemon.volumes / place, GIB + 1)
        return await adopt(self, place, volume, unit)

    monkeypatch.setattr(FileBackend, "adopt", adopted)
    shown = await manage(daemon, place)
    await settled(daemon, f"volumes/{shown['id']}", "error")
    assert (await reason(daemon))["code"] == "disk-not-adoptable"
    assert files(daemon) == {place}


@ensureDeferred
async def test_only_operators_may(daemon: Running) -> None:
    volume = await made(daemon, "volume", size=1)
    body = {"volume": {"host": "bootvol@local#local", "ref": {"source-name": "x"}}}
    refused = [
        await ask(daemon, "POST", "os-volume-manage", body),
        await ask(daemon, "GET", "manageable_volumes?host=bootvol@local"),
        await act(daemon, f"volumes/{volume}", who="member"),
    ]
    assert [each.status for each in refused] == [403, 403, 403]


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"host": "nohost"}, "Host 'nohost' not found"),
        ({"host": "bootvol@other#other"}, "Host 'bootvol@other#other' not found"),
        ({"ref": None}, "Invalid input for field/attribute ref. Value: None. None is not of type"),
        ({"ref": {}}, "the reference must have a source-name"),
        ({"ref": {"source-name": 1}}, "the reference must have a source-name"),
        ({"ref": {"source-name": "x" * 256}}, "the reference must have a source-name"),
        ({"ref": {"source-name": "a\nb"}}, "the reference must have a source-name"),
        ({"volume_type": "none"}, "Volume type with name none could not be found."),
        ({"availability_zone": "mars"}, "Availability zone 'mars' is invalid."),
        ({"bootable": "maybe"}, "Invalid input for field/attribute bootable"),
    ],
)
@ensureDeferred
async def test_a_bad_request_is_refused(
    daemon: Running, wanted: dict[str, object], words: str
) -> None:
    known = await host(daemon)
    body = {"volume": {"host": known, "ref": {"source-name": "x"}, **wanted}}
    answer = await ask(daemon, "POST", "os-volume-manage", body, who="admin")
    assert answer.status in (400, 404)
    (fault,) = answer.json.values()
    assert words in fault["message"]
    assert (await ask(daemon, "GET", "volumes", who="admin")).json["volumes"] == []


@ensureDeferred
async def test_the_type_must_be_for_the_backend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(microversions, "HIGHEST", Microversion(3, 71))
    first = f'[[backends]]\nname = "first"\nplugin = "file"\ndirectory = "{tmp_path}/first"'
    daemon = Running(tmp_path, identity=PEOPLE, first=first)
    try:
        for name in ("first", "local"):
            body = {"volume_type": {"name": name, "extra_specs": {"volume_backend_name": name}}}
            assert (await ask(daemon, "POST", "types", body, who="admin")).status == 200
        place = put(daemon)
        known = (await host(daemon)).replace("first", "local")
        wanted = {"host": known, "ref": {"source-name": place}, "volume_type": "first"}
        answer = await ask(daemon, "POST", "os-volume-manage", {"volume": wanted}, who="admin")
        assert answer.status == 400
        assert "is for the backend first" in answer.json["badRequest"]["message"]
        specs = {"volume_backend_name": "local", "multiattach": "<is> True"}
        body = {"volume_type": {"name": "more", "extra_specs": specs}}
        assert (await ask(daemon, "POST", "types", body, who="admin")).status == 200
        wanted["volume_type"] = "more"
        answer = await ask(daemon, "POST", "os-volume-manage", {"volume": wanted}, who="admin")
        assert answer.status == 400
        assert "asks for: multiattach" in answer.json["badRequest"]["message"]
        wanted["volume_type"] = "local"
        answer = await ask(daemon, "POST", "os-volume-manage", {"volume": wanted}, who="admin")
        assert answer.json["volume"]["volume_type"] == "local"
        await settled(daemon, f"volumes/{answer.json['volume']['id']}", "available")
    finally:
        await daemon.stop()


@ensureDeferred
async def test_the_lists_tell_what_could_be_taken_over(daemon: Running) -> None:
    volume = await made(daemon, "volume", size=1)
    snapshot = await made(daemon, "snapshot", volume_id=volume)
    known = (await host(daemon)).replace("#", "%23")
    place = put(daemon, "zzz", 5 * GIB)
    (daemon.volumes / "empty").touch()
    details = f"manageable_volumes/detail?host={known}"
    answer = await ask(daemon, "GET", details, who="admin")
    found = {each["reference"]["source-name"]: each for each in answer.json["manageable-volumes"]}
    (ours,) = set(found) - {"empty", place}
    assert found[place] == {
        "reference": {"source-name": place},
        "size": 5,
        "safe_to_manage": True,
        "reason_not_safe": None,
        "cinder_id": None,
        "extra_info": None,
    }
    assert found["empty"]["reason_not_safe"] == "the file is empty"
    assert (found[ours]["cinder_id"], found[ours]["safe_to_manage"]) == (volume, False)
    assert found[ours]["reason_not_safe"] == "already managed"
    for old in ("os-volume-manage", "manageable_volumes"):
        brief = await ask(daemon, "GET", f"{old}?host={known}&sort=size:asc", who="admin")
        shown = brief.json["manageable-volumes"]
        assert [each["size"] for each in shown] == [0, 1, 5]
        assert set(shown[0]) == {"reference", "size", "safe_to_manage"}
        page = f"{old}?host={known}&limit=1&sort_key=size&sort_dir=desc&marker=zzz"
        page = (await ask(daemon, "GET", page, who="admin")).json["manageable-volumes"]
        assert [each["size"] for each in page] == [1]
    put(daemon, "it's", 5 * GIB)
    for marker in ('{"source-name": "it\'s"}', "{'source-name': \"it's\"}"):
        page = f"manageable_volumes?host={known}&sort=reference:asc&marker={quote(marker)}"
        page = (await ask(daemon, "GET", page, who="admin")).json["manageable-volumes"]
        assert [each["reference"]["source-name"] for each in page][-1] == "zzz"
    snapshots = f"manageable_snapshots/detail?host={known}"
    (shown,) = (await ask(daemon, "GET", snapshots, who="admin")).json["manageable-snapshots"]
    assert (shown["cinder_id"], shown["reason_not_safe"]) == (snapshot, "already managed")
    assert shown["source_reference"] is None
    early = await ask(daemon, "GET", details, who="admin", version="3.7")
    assert early.status == 404
    for bad in ("sort=x", "sort=size:up", "marker=none", "limit=-1", "offset=x"):
        assert (await ask(daemon, "GET", f"{details}&{bad}", who="admin")).status == 400
    assert (await ask(daemon, "GET", "manageable_volumes", who="admin")).status == 400


@ensureDeferred
async def test_snapshots_change_hands(daemon: Running) -> None:
    volume = await made(daemon, "volume", size=1, imageRef="disk")
    snapshot = await made(daemon, "snapshot", volume_id=volume)
    refused = await act(daemon, f"volumes/{volume}")
    assert refused.status == 400
    assert refused.json["badRequest"]["message"] == (
        "Invalid volume: Volume status must be available or error or error_restoring or"
        " error_extending or error_managing and must not be migrating, attached, belong to a"
        " group, have snapshots, awaiting a transfer, or be disassociated from snapshots after"
        " volume transfer."
    )
    assert (await act(daemon, f"snapshots/{snapshot}")).status == 202
    await gone(daemon, f"snapshots/{snapshot}")
    place = f"snapshot-{snapshot}"
    assert place in files(daemon)
    known = (await host(daemon)).replace("#", "%23")
    path = f"manageable_snapshots?host={known}"
    listed = (await ask(daemon, "GET", path, who="admin")).json["manageable-snapshots"]
    assert [(each["reference"]["source-name"], each["safe_to_manage"]) for each in listed] == [
        (place, True)
    ]
    wanted = {"volume_id": volume, "ref": {"source-name": place}, "name": "ms2", "metadata": None}
    answer = await ask(daemon, "POST", "os-snapshot-manage", {"snapshot": wanted}, who="admin")
    assert answer.status == 202, answer
    shown = answer.json["snapshot"]
    assert set(shown) == SNAPSHOT
    assert (shown["status"], shown["size"], shown["volume_id"]) == ("creating", 1, volume)
    await settled(daemon, f"snapshots/{shown['id']}", "available")
    copy = await made(daemon, "volume", snapshot_id=shown["id"])
    (member,) = [
        each
        for each in (await ask(daemon, "GET", "volumes/detail")).json["volumes"]
        if each["id"] == copy
    ]
    assert (member["size"], member["bootable"]) == (1, "true")
    # A disk that is larger than the volume is no snapshot of the volume.
    large = put(daemon)
    wanted = {"volume_id": volume, "ref": {"source-name": large}}
    body = {"snapshot": wanted}
    answer = await ask(daemon, "POST", "manageable_snapshots", body, who="admin")
    await settled(daemon, f"snapshots/{answer.json['snapshot']['id']}", "error")
    assert large in files(daemon)


@ensureDeferred
async def test_an_open_volume_is_not_given_up(daemon: Running) -> None:
    volume = await made(daemon, "volume", size=1)
    (name,) = files(daemon)
    with (daemon.volumes / name).open("r+b"):
        assert (await act(daemon, f"volumes/{volume}")).status == 202
        assert (await settled(daemon, f"volumes/{volume}", "error"))["size"] == 1
    assert files(daemon) == {name}
    # The data is whole, so an operator may make the volume available again.
    body = {"os-reset_status": {"status": "available"}}
    answer = await ask(daemon, "POST", f"volumes/{volume}/action", body, who="admin")
    assert answer.status == 202, answer
    assert (await settled(daemon, f"volumes/{volume}", "available"))["size"] == 1
    assert (await act(daemon, f"volumes/{volume}")).status == 202
    await gone(daemon, f"volumes/{volume}")
    assert files(daemon) == {f"volume-{volume}"}


@ensureDeferred
async def test_a_crash_after_the_change_of_names_loses_nothing(
    daemon: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next attempt finds the data under the new name.

    Break: `src/bootvol/worker/tasks/adoption.py`:
    `await claim.in_transaction(states.begin_removal, self.kind, self.id)` -> `pass`.
    """
    volume, give_up = await made(daemon, "volume", size=1), FileBackend.give_up

    async def interrupted(self: FileBackend, volume: str, place: str) -> None:
        await give_up(self, volume, place)
        monkeypatch.setattr(FileBackend, "give_up", give_up)
        raise BackendInterrupted("The work begins again.")

    monkeypatch.setattr(FileBackend, "give_up", interrupted)
    await act(daemon, f"volumes/{volume}")
    await gone(daemon, f"volumes/{volume}")
    assert files(daemon) == {f"volume-{volume}"}


@ensureDeferred
async def test_a_volume_whose_data_is_missing_is_told_before_it_goes(daemon: Running) -> None:
    volume = await made(daemon, "volume", size=1)
    (name,) = files(daemon)
    (daemon.volumes / name).unlink()
    await act(daemon, f"volumes/{volume}")
    assert (await settled(daemon, f"volumes/{volume}", "error"))["size"] == 1
    await act(daemon, f"volumes/{volume}")
    await gone(daemon, f"volumes/{volume}")


@ensureDeferred
async def test_a_failed_attempt_to_give_a_volume_up_keeps_no_bytes_from_deletion(
    daemon: Running,
) -> None:
    volume = await made(daemon, "volume", size=1)
    (name,) = files(daemon)
    with (daemon.volumes / name).open("r+b"):
        await act(daemon, f"volumes/{volume}")
        await settled(daemon, f"volumes/{volume}", "error")
    await ask(daemon, "DELETE", f"volumes/{volume}")
    await gone(daemon, f"volumes/{volume}")
    assert files(daemon) == set()
