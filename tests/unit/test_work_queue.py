"""The order of work: no claim is possible while conflicting work is in progress."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import attrs
import pytest
from sqlalchemy import Connection, update

from bootvol.errors import AttachmentNotFound, DeviceInUse, ErrorReport, InvalidDevice
from bootvol.lifecycle import Event, Kind, Status
from bootvol.model import (
    Attachment,
    ImageRecord,
    Replacement,
    Server,
    Snapshot,
    Volume,
    VolumeUpload,
)
from bootvol.service import overview
from bootvol.service.server_hosts import with_reason
from bootvol.store import (
    attachments,
    claims,
    daemons,
    disabled,
    replacements,
    schema,
    servers,
    snapshots,
    states,
    volume_uploads,
    volumes,
    work_queue,
)
from bootvol.store.schema import LIVING
from tests.unit.conftest import ENDED, Anybody, end_leases

DATE = datetime(2026, 1, 1, tzinfo=UTC)


def request(daemon: str = "d", *, serves: bool = True) -> claims.ClaimRequest:
    """Return a daemon with a request for work."""
    busy: dict[Kind, list[int]] = {kind: [] for kind in Kind}
    return claims.ClaimRequest(f"{daemon}/1", daemon, ["b"], [], busy, serves)


def a_volume(db: Connection, status: Status = Status.AVAILABLE, **more: Any) -> Volume:
    """Add a volume."""
    name = f"volume-{len(volumes.listed(db, 't'))}"
    return volumes.add(db, Volume(0, name, "t", "u", 1, status, DATE, "nova", "b", **more))


def a_snapshot(db: Connection, volume: Volume, status: Status = Status.CREATING) -> Snapshot:
    """Add a snapshot."""
    name = f"snapshot-{snapshots.count(db, 't')}"
    return snapshots.add(db, Snapshot(0, name, "t", "u", volume.id, 1, status, DATE, "b"))


def a_server(db: Connection, status: Status = Status.CREATING, daemon: str | None = None) -> Server:
    """Add a server."""
    name = f"server-{servers.count(db, 't')}"
    return servers.add(db, Server(0, name, name, "t", "u", status, DATE, "x", "100", 64, 1, daemon))


def attach(db: Connection, volume: Volume, server: Server | None, device: str = "vdb") -> None:
    """Attach a volume to a server, as a promise."""
    wanted = Attachment(volume.id, str(server.id) if server else "elsewhere", device)
    attachments.add(db, "t", wanted, server)


def become(db: Connection, kind: Kind, number: int, status: Status, **more: Any) -> None:
    """Set the status of a row, without a transition."""
    table = LIVING[kind]
    db.execute(update(table).where(table.c.id == number).values(status=status, **more))


def free(db: Connection, kind: Kind, number: int) -> None:
    """Release the claim of a row."""
    table = LIVING[kind]
    db.execute(update(table).where(table.c.id == number).values(worker=None, lease_until=None))


def claim(db: Connection, who: claims.ClaimRequest) -> work_queue.Subject | None:
    """Claim any work except copies."""
    quick, _ = work_queue.claim_quick(db, who, Anybody())
    return quick or work_queue.claim_hosting(db, who, Anybody())[0]


def copy(db: Connection, who: claims.ClaimRequest) -> work_queue.Subject | None:
    """Claim a copy."""
    return work_queue.claim_copy(db, who, Anybody())[0]


def quick(db: Connection, **more: Any) -> int | None:
    """Claim any work except copies; return the id."""
    found = claim(db, request(**more))
    return None if found is None else found.id


def test_another_host_makes_what_a_disabled_one_does_not(db: Connection) -> None:
    """A disabled store is made nowhere; removals go on everywhere."""
    here, there = (attrs.evolve(request(who), host=who) for who in ("one", "two"))
    disabled.put(db, ("", "one"), None)
    made, removed = a_volume(db, Status.CREATING), a_volume(db, Status.DELETING)
    of_snapshot = a_volume(db, Status.CREATING, source_id=a_volume(db).id)
    assert overview.disabled_reason(db, "b", "one") is not None
    assert overview.disabled_reason(db, "b", "two") is None
    found = claim(db, here)
    assert found is not None
    assert found.id == removed.id
    assert (claim(db, here), copy(db, here)) == (None, None)
    disabled.put(db, ("b", ""), "upkeep")
    assert (claim(db, there), copy(db, there)) == (None, None)
    assert overview.disabled_reason(db, "b", "") is not None
    disabled.remove(db, ("b", ""))
    (first, second) = (claim(db, there), copy(db, there))
    assert (first and first.id, second and second.id) == (made.id, of_snapshot.id)


def test_a_volume_stays_while_a_snapshot_of_it_is_made(db: Connection) -> None:
    volume = a_volume(db)
    snapshot = a_snapshot(db, volume)
    states.apply_event(db, Kind.VOLUME, volume.id, Event.DELETE)
    assert quick(db) is None
    copied = copy(db, request())
    assert isinstance(copied, Snapshot)
    assert copied.id == snapshot.id
    assert quick(db) is None
    states.apply_event(db, Kind.SNAPSHOT, snapshot.id, Event.COMPLETE)
    assert quick(db) == volume.id


@pytest.mark.parametrize("ends", [Event.VANISH, Event.FAIL])
def test_a_volume_goes_after_the_snapshots_that_go_with_it(db: Connection, ends: Event) -> None:
    """Break: `src/bootvol/store/work_queue.py`: `~_copied(), ~before)` -> `~_copied())`"""
    volume = a_volume(db)
    a_snapshot(db, volume, Status.AVAILABLE)
    snapshot = a_snapshot(db, volume, Status.AVAILABLE)
    states.apply_event(db, Kind.SNAPSHOT, snapshot.id, Event.DELETE)
    states.apply_event(db, Kind.VOLUME, volume.id, Event.DELETE)
    found = claim(db, request())
    assert isinstance(found, Snapshot)
    assert found.id == snapshot.id
    assert quick(db) is None
    states.apply_event(db, Kind.SNAPSHOT, snapshot.id, ends)
    found = claim(db, request())
    assert isinstance(found, Volume)


def test_a_snapshot_stays_while_a_volume_is_made_of_it(db: Connection) -> None:
    snapshot = a_snapshot(db, a_volume(db), Status.AVAILABLE)
    volume = a_volume(db, Status.CREATING, snapshot_id=snapshot.id)
    states.apply_event(db, Kind.SNAPSHOT, snapshot.id, Event.DELETE)
    assert quick(db) is None
    copied = copy(db, request())
    assert isinstance(copied, Volume)
    assert copied.id == volume.id
    assert copy(db, request()) is None
    states.apply_event(db, Kind.VOLUME, volume.id, Event.COMPLETE)
    assert quick(db) == snapshot.id


def test_a_volume_stays_while_another_is_made_of_it(db: Connection) -> None:
    source = a_volume(db)
    volume = a_volume(db, Status.CREATING, source_id=source.id)
    for event in (Event.EXTEND, Event.EXTENDED, Event.DELETE):
        states.apply_event(db, Kind.VOLUME, source.id, event)
        assert quick(db) is None
    copied = copy(db, request())
    assert isinstance(copied, Volume)
    assert copied.id == volume.id
    states.apply_event(db, Kind.VOLUME, volume.id, Event.COMPLETE)
    assert quick(db) == source.id


def test_data_are_replaced_when_nobody_copies_them(db: Connection) -> None:
    volume = a_volume(db)
    snapshot = a_snapshot(db, volume)
    states.apply_event(db, Kind.VOLUME, volume.id, Event.RETYPE)
    replacements.add(db, Replacement(volume.id, "new", "elsewhere"))
    assert copy(db, request("other")) == snapshot
    assert copy(db, request()) is None
    states.apply_event(db, Kind.SNAPSHOT, snapshot.id, Event.COMPLETE)
    free(db, Kind.SNAPSHOT, snapshot.id)
    # This daemon does not reach the other backend.
    assert copy(db, request()) is None
    both = attrs.evolve(request(), backends=["b", "elsewhere"])
    copied = copy(db, both)
    assert isinstance(copied, Volume)
    assert copied.id == volume.id


def test_a_daemon_uploads_alone_what_it_has_the_token_for(db: Connection) -> None:
    volume = a_volume(db)
    states.apply_event(db, Kind.VOLUME, volume.id, Event.UPLOAD)
    image = ImageRecord("i", "t", 0.0, 0.0)
    volume_uploads.add(db, VolumeUpload(volume.id, "glance", image, "other"))
    daemons.announce(db, "other", "")
    assert copy(db, request()) is None
    assert isinstance(copy(db, request("other")), Volume)
    free(db, Kind.VOLUME, volume.id)
    # The other daemon has ended.
    db.execute(update(schema.daemons).values(lease_until=ENDED))
    assert isinstance(copy(db, request()), Volume)


def test_what_is_still_read_stays_though_the_copy_is_not_wanted_any_more(db: Connection) -> None:
    volume = a_volume(db)
    snapshot = a_snapshot(db, volume)
    copied = copy(db, request("other"))
    assert isinstance(copied, Snapshot)
    states.apply_event(db, Kind.SNAPSHOT, snapshot.id, Event.DELETE)
    states.apply_event(db, Kind.VOLUME, volume.id, Event.DELETE)
    assert quick(db) is None
    free(db, Kind.SNAPSHOT, snapshot.id)
    assert isinstance(claim(db, request()), Snapshot)
    assert quick(db) is None
    states.apply_event(db, Kind.SNAPSHOT, snapshot.id, Event.VANISH)
    assert isinstance(claim(db, request()), Volume)


def test_a_snapshot_that_is_still_read_stays_likewise(db: Connection) -> None:
    snapshot = a_snapshot(db, a_volume(db), Status.AVAILABLE)
    made = a_volume(db, Status.CREATING, snapshot_id=snapshot.id)
    assert isinstance(copy(db, request("other")), Volume)
    states.apply_event(db, Kind.VOLUME, made.id, Event.DELETE)
    states.apply_event(db, Kind.SNAPSHOT, snapshot.id, Event.DELETE)
    assert quick(db) is None
    # The claim means nothing now: the lease has expired.
    end_leases(db)
    assert isinstance(claim(db, request()), Volume)
    assert quick(db) is None
    free(db, Kind.VOLUME, made.id)
    become(db, Kind.VOLUME, made.id, Status.ERROR)
    assert isinstance(claim(db, request()), Snapshot)


def test_nobody_writes_to_what_is_copied(db: Connection) -> None:
    volume = a_volume(db)
    snapshot = a_snapshot(db, volume)
    attach(db, volume, None)
    states.apply_event(db, Kind.VOLUME, volume.id, Event.ATTACH)
    assert quick(db) is None
    states.apply_event(db, Kind.SNAPSHOT, snapshot.id, Event.COMPLETE)
    assert quick(db) == volume.id


def test_an_attachment_is_its_daemons(db: Connection) -> None:
    volume = a_volume(db)
    attach(db, volume, None)
    states.apply_event(db, Kind.VOLUME, volume.id, Event.ATTACH)
    attachments.assign(db, volume.id, "other")
    assert quick(db) is None
    assert quick(db, daemon="other") == volume.id


def test_a_server_waits_for_its_volumes(db: Connection) -> None:
    server, snapshot = a_server(db), a_snapshot(db, a_volume(db), Status.AVAILABLE)
    made = a_volume(db, Status.CREATING, snapshot_id=snapshot.id)
    attach(db, made, server, "vda")
    assert quick(db) is None
    states.apply_event(db, Kind.VOLUME, made.id, Event.COMPLETE)
    assert quick(db, serves=False) is None
    assert quick(db) == server.id


def test_the_disks_of_a_server_that_is_built_are_its_own_task(db: Connection) -> None:
    server, volume = a_server(db, daemon="d"), a_volume(db)
    attach(db, volume, server, "vda")
    states.apply_event(db, Kind.VOLUME, volume.id, Event.ATTACH)
    found = claim(db, request())
    assert isinstance(found, Server)
    assert quick(db) is None
    states.apply_event(db, Kind.SERVER, server.id, Event.COMPLETE)
    assert quick(db) == volume.id


def test_a_server_is_told_one_thing_at_a_time(db: Connection) -> None:
    server, other = (a_server(db, Status.AVAILABLE, "d") for _ in range(2))
    first, second, third = (a_volume(db) for _ in range(3))
    for volume, its in (first, server), (second, server), (third, other):
        attach(db, volume, its, "vdb" if volume is not second else "vdc")
        states.apply_event(db, Kind.VOLUME, volume.id, Event.ATTACH)
    assert [quick(db) for _ in range(3)] == [first.id, third.id, None]
    states.apply_event(db, Kind.VOLUME, first.id, Event.ATTACHED)
    free(db, Kind.VOLUME, first.id)
    assert quick(db) == second.id


def test_a_server_boots_from_its_root_whatever_its_other_disks_are_called(db: Connection) -> None:
    server = a_server(db)
    for device in "/dev/sda", "/dev/vda", "hdb":
        attach(db, a_volume(db), server, device)
    found = [attachment.disk for _, attachment in attachments.disks(db, server.id)]
    assert found == ["vda", "hdb", "sda"]


def test_a_server_does_not_end_while_its_daemon_is_at_it(db: Connection) -> None:
    server, volume = a_server(db, Status.AVAILABLE, "d"), a_volume(db)
    attach(db, volume, server)
    states.apply_event(db, Kind.VOLUME, volume.id, Event.ATTACH)
    assert quick(db) == volume.id
    states.apply_event(db, Kind.SERVER, server.id, Event.DELETE)
    # The lease has expired, but the hypervisor's call continues.
    end_leases(db)
    late = request()
    busy = {**late.busy, Kind.VOLUME: [volume.id]}
    assert claim(db, attrs.evolve(late, busy=busy)) is None
    assert isinstance(claim(db, late), Server)


def test_a_server_ends_when_nobody_moves_a_disk_of_it(db: Connection) -> None:
    server, volume = a_server(db, Status.AVAILABLE, "d"), a_volume(db)
    attach(db, volume, server)
    states.apply_event(db, Kind.VOLUME, volume.id, Event.ATTACH)
    assert quick(db) == volume.id
    states.apply_event(db, Kind.SERVER, server.id, Event.DELETE)
    assert quick(db) is None
    # Nobody begins a move now, and every earlier move has ended.
    free(db, Kind.VOLUME, volume.id)
    assert quick(db, daemon="other") is None
    found = claim(db, request())
    assert isinstance(found, Server)
    assert quick(db) is None


@pytest.mark.parametrize("kind", Kind)
def test_what_is_settled_is_no_work(db: Connection, kind: Kind) -> None:
    volume = a_volume(db)
    number = {
        Kind.VOLUME: volume.id,
        Kind.SNAPSHOT: a_snapshot(db, volume, Status.AVAILABLE).id,
        Kind.SERVER: a_server(db, Status.AVAILABLE).id,
    }[kind]
    for status in Status.AVAILABLE, Status.ERROR, Status.IN_USE:
        become(db, kind, number, status)
        assert quick(db) is None
        assert copy(db, request()) is None
    become(db, kind, number, Status.DELETING)
    assert quick(db) == number
    assert quick(db) is None, "it is claimed"
    end_leases(db)
    assert quick(db) == number, "the claim has run out"


def test_devices_are_named_once(db: Connection) -> None:
    first, second, third = a_volume(db), a_volume(db), a_volume(db)
    attach(db, first, None, "/dev/vdb")
    with pytest.raises(DeviceInUse):
        attach(db, second, None, "vdb")
    attach(db, second, None, "")
    found = attachments.find(db, second.id)
    assert found is not None
    assert found.device == "/dev/vdc"
    with pytest.raises(InvalidDevice):
        attach(db, third, None, "floppy")
    attachments.remove(db, first.id)
    attach(db, third, None, "vdb")
    with pytest.raises(AttachmentNotFound):
        attachments.assign(db, first.id, "d")


def test_a_stored_error_stays_unless_the_operator_has_to_act(db: Connection) -> None:
    stored = ErrorReport("hypervisor-failed", "The server does not end.", True, "Try again.")
    server = attrs.evolve(a_server(db, Status.DELETING, "d"), error=stored)
    assert with_reason(db, server, "d").error == stored
    waiting = with_reason(db, server, "another").error
    assert waiting is not None
    assert waiting.code == "daemon-away"
