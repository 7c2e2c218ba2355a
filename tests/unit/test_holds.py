"""Holds of other systems: the volume's status follows them, whatever the order of calls."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy import Connection, select, update
from sqlalchemy import create_engine as new_engine
from sqlalchemy import event as events
from twisted.internet import reactor as loop

from bootvol.backends import Backends
from bootvol.errors import (
    AttachmentNotFound,
    BootvolError,
    HoldProtected,
    HostTaken,
    InvalidRequest,
    VolumeBusy,
    VolumeCopied,
    VolumeTaken,
)
from bootvol.lifecycle import Event, Kind, Status
from bootvol.model import (
    Attachment,
    Caller,
    Connector,
    Hold,
    HoldState,
    LocalRoute,
    NewHold,
    RbdRoute,
    Snapshot,
    Volume,
    new_uuid,
)
from bootvol.service.holding import holds as single
from bootvol.service.holding.by_hand import ByHand, Taken
from bootvol.service.holding.holds import Holds, Told
from bootvol.service.holding.rules import MOST
from bootvol.service.volumes import _mark_deleted
from bootvol.store import attachments, holds, schema, snapshots, states, volumes
from bootvol.store.database import Database
from bootvol.testing.memory import MemoryBackend

ANN = Caller("ann", "t")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
SERVER, OTHER = str(uuid4()), str(uuid4())
ROUTE = LocalRoute("/dev/volumes/v")


class Calls:
    """The calls on one volume, each a transaction of its own.

    :param database: None for a new one in memory.
    """

    def __init__(self, engine: Any, status: Status = Status.AVAILABLE) -> None:
        no: Any = None
        clock: Any = loop
        self.backends = Backends([MemoryBackend("b", clock)], clock)
        self._holds = Holds(no, self.backends, lambda: NOW)
        self._by_hand = ByHand(no, self.backends, lambda: NOW)
        self.engine = engine
        image = "x" if status in (Status.CREATING, Status.DOWNLOADING) else None
        wanted = Volume(0, f"v{uuid4()}", "t", "u", 1, status, NOW, "nova", "b", image_id=image)
        with self.begin() as db:
            self.volume = volumes.add(db, wanted)

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """Begin a transaction, which ends with the block."""
        with self.engine.begin() as db:
            yield db

    @property
    def now(self) -> Volume:
        """The volume as it is now."""
        with self.begin() as db:
            return volumes.get(db, "t", self.volume.id)

    def status(self) -> Status:
        """Return the volume's status."""
        return self.now.status

    def found(self) -> list[Hold]:
        """Return the holds on the volume."""
        with self.begin() as db:
            return list(holds.of_volume(db, self.volume.id))

    def apply(self, event: Event) -> None:
        """Apply an event to the volume."""
        with self.begin() as db:
            states.apply_event(db, Kind.VOLUME, self.volume.id, event)

    def reserve(self, instance: str | None = SERVER, host: str | None = None) -> Hold:
        """Reserve the volume; return the hold as it is then."""
        wanted = NewHold(self.volume.id, instance)
        connector = None if host is None else connector_of(host)
        with self.begin() as db:
            route = None if host is None else ROUTE
            return self._holds._reserve(db, ANN, wanted, connector, route).after

    def connect(self, uuid: str, host: str = "h1", **more: str) -> Told:
        """Tell a host the way."""
        with self.begin() as db:
            return self._holds._connect(db, ANN, uuid, connector_of(host, **more), ROUTE)

    def complete(self, uuid: str) -> None:
        with self.begin() as db:
            self._holds._complete(db, ANN, uuid)

    def free(self, uuid: str, *, trusted: bool = True) -> list[Hold]:
        with self.begin() as db:
            return list(single._free(db, ANN, uuid, trusted))

    def delete(self) -> None:
        with self.begin() as db:
            _mark_deleted(db, "t", self.volume.id, False)

    def by_hand(self, name: str, *arguments: object, **more: object) -> None:
        """Call one of the older calls."""
        call = getattr(self._by_hand, name)(ANN, self.volume.id, *arguments, **more)
        self._by_hand._database = self  # type: ignore[assignment]
        with pytest.raises(StopIteration):
            call.send(None)

    async def write(self, query: Any, *arguments: object) -> object:
        """See :meth:`bootvol.store.database.Database.write`."""
        with self.begin() as db:
            return query(db, *arguments)

    read = write


def connector_of(host: str, mountpoint: str | None = "/dev/vdb", **more: str) -> Connector:
    """Return a host's description of itself."""
    mode = more.get("mode")
    return Connector(host, mountpoint, mode, {"host": host, "mountpoint": mountpoint, **more})


@pytest.fixture
def calls(database: Database) -> Calls:
    """The calls on an available volume."""
    return Calls(database._engine)


def test_a_volume_goes_to_a_server_and_comes_back(calls: Calls) -> None:
    hold = calls.reserve()
    assert (hold.state, calls.status()) == (HoldState.RESERVED, Status.RESERVED)
    told = calls.connect(hold.uuid)
    assert (told.before, calls.status()) == (hold, Status.ATTACHING)
    assert calls.found() == [told.after]
    assert (told.after.state, told.after.route) == (HoldState.ATTACHING, ROUTE)
    # The answer may have been lost.
    again = calls.connect(hold.uuid)
    assert (again.before, again.after) == (told.after, told.after)
    assert not calls.now.attachments
    for _ in range(2):
        calls.complete(hold.uuid)
    assert calls.status() is Status.IN_USE
    (shown,) = calls.now.attachments
    assert (shown.server_id, shown.device, shown.host) == (SERVER, "/dev/vdb", "h1")
    assert (shown.uuid, shown.attached_at) == (hold.uuid, NOW)
    calls.by_hand("begin_detaching")
    assert calls.status() is Status.DETACHING
    # A late repetition changes nothing.
    calls.complete(hold.uuid)
    calls.connect(hold.uuid)
    assert calls.status() is Status.DETACHING
    calls.by_hand("roll_detaching")
    assert calls.status() is Status.IN_USE
    assert calls.free(hold.uuid) == []
    assert calls.status() is Status.AVAILABLE
    with pytest.raises(AttachmentNotFound):
        calls.free(hold.uuid)


def test_a_volume_with_a_hold_is_kept(calls: Calls) -> None:
    """Break: `src/bootvol/store/attachments.py`: `or holds.exist(connection, volume_id)` -> ``."""
    hold = calls.reserve()
    with calls.begin() as db:
        assert attachments.is_promised(db, calls.volume.id)
    for step in (calls.connect, calls.complete):
        with pytest.raises(VolumeBusy):
            calls.delete()
        step(hold.uuid)
    with pytest.raises(VolumeBusy):
        calls.delete()
    with calls.begin() as db:
        db.execute(update(schema.volumes).values(status=Status.ERROR))
    with pytest.raises(VolumeBusy):
        calls.delete()
    assert len(calls.now.attachments) == 1
    calls.free(hold.uuid)
    assert calls.status() is Status.ERROR
    calls.delete()


def test_only_the_same_server_gets_a_volume_again(calls: Calls) -> None:
    """As for a move to another host.

    Break: `src/bootvol/service/holding/rules.py`: `if not (again and theirs)` -> `if not again`.
    """
    first = calls.reserve(host="h1")
    for instance in (SERVER, OTHER, None):
        with pytest.raises(VolumeTaken, match="attaching"):
            calls.reserve(instance)
    calls.complete(first.uuid)
    for instance in (OTHER, None):
        with pytest.raises(VolumeTaken, match="in-use"):
            calls.reserve(instance)
    with pytest.raises(HostTaken):
        calls.reserve(host="h1")
    second = calls.reserve(host="h2")
    assert calls.status() is Status.IN_USE
    with pytest.raises(HostTaken):
        calls.connect(second.uuid, "h1")
    with pytest.raises(HostTaken):
        calls.connect(first.uuid, "h3")
    calls.complete(second.uuid)
    assert len(calls.now.attachments) == 2
    (left,) = calls.free(first.uuid)
    assert (left.uuid, left.state, calls.status()) == (
        second.uuid,
        HoldState.ATTACHED,
        Status.IN_USE,
    )
    # A server that is built anew on its host.
    third = calls.reserve()
    calls.free(second.uuid)
    assert calls.status() is Status.RESERVED
    calls.connect(third.uuid, "h2")
    assert calls.status() is Status.ATTACHING
    while len(calls.found()) < MOST:
        with calls.begin() as db:
            hold = Hold(
                new_uuid(), calls.volume.id, "", "t", HoldState.RESERVED, NOW, instance=SERVER
            )
            holds.add(db, hold)
    calls.complete(third.uuid)
    with pytest.raises(InvalidRequest, match="16 attachments"):
        calls.reserve()


def test_a_server_may_reserve_a_volume_whose_image_still_comes(database: Database) -> None:
    calls = Calls(database._engine, Status.DOWNLOADING)
    hold = calls.reserve()
    assert calls.status() is Status.DOWNLOADING
    with pytest.raises(VolumeTaken, match="reserved"):
        calls.reserve(OTHER)
    calls.reserve()
    for step in (calls.connect, calls.complete):
        with pytest.raises(VolumeTaken, match="downloading"):
            step(hold.uuid)
    with pytest.raises(VolumeBusy):
        calls.delete()
    with calls.begin() as db:
        states.apply_event(db, Kind.VOLUME, calls.volume.id, Event.COMPLETE)
        holds.after_making(db, calls.volume.id)
    assert calls.status() is Status.RESERVED
    failed = Calls(database._engine, Status.CREATING)
    hold = failed.reserve()
    failed.apply(Event.FAIL)
    with pytest.raises(VolumeTaken, match="error"):
        failed.reserve()
    failed.free(hold.uuid, trusted=False)
    assert failed.status() is Status.ERROR


def test_users_free_no_volume_under_a_server(calls: Calls) -> None:
    """CVE-2023-2088.

    Break: `src/bootvol/service/holding/rules.py`: `(in_use and not trusted)` -> `False`.
    """
    hold = calls.reserve()
    calls.free(hold.uuid, trusted=False)
    assert calls.status() is Status.AVAILABLE
    unknown = calls.reserve(None, "h1")
    calls.complete(unknown.uuid)
    calls.free(unknown.uuid, trusted=False)
    hold = calls.reserve(host="h1")
    for step in (lambda _: None, calls.complete):
        step(hold.uuid)
        with pytest.raises(HoldProtected) as caught:
            calls.free(hold.uuid, trusted=False)
        assert caught.value.instance == SERVER
        for name, arguments in (
            ("detach", [hold.uuid]),
            ("detach", [None]),
            ("check_end", []),
            ("route", []),
        ):
            with pytest.raises(HoldProtected):
                calls.by_hand(name, *arguments, trusted=False)
    assert calls.status() is Status.IN_USE
    calls.reserve(host="h2")
    for name, arguments in (("detach", [None]), ("check_end", [])):
        with pytest.raises(HoldProtected):
            calls.by_hand(name, *arguments, trusted=False)
    with pytest.raises(InvalidRequest, match="name the attachment"):
        calls.by_hand("detach", None, trusted=True)
    calls.by_hand("check_end", trusted=True)
    calls.by_hand("detach", hold.uuid, trusted=True)
    # Another host still knows the way.
    assert calls.status() is Status.ATTACHING


def test_volumes_of_bootvols_own_servers_stay_there(calls: Calls) -> None:
    """The attachments show as others do, and no call of the other kind changes them."""
    with calls.begin() as db:
        states.apply_event(db, Kind.VOLUME, calls.volume.id, Event.ATTACH)
        attachments.add(db, "t", Attachment(calls.volume.id, "one", "vdb"), None)

    def shown() -> Hold:
        with calls.begin() as db:
            (found,) = holds.listed(db, "t")
            assert holds.listed(db, None) == [found]
            assert holds.get(db, "t", found.uuid) == found
            with pytest.raises(AttachmentNotFound):
                holds.get(db, "other", found.uuid)
            assert not holds.listed(db, "other")
        return found

    assert shown().state is HoldState.ATTACHING
    calls.by_hand("unreserve")
    assert calls.status() is Status.ATTACHING
    calls.apply(Event.ATTACHED)
    ours = shown()
    assert (ours.state, ours.ours, ours.instance, ours.mountpoint) == (
        HoldState.ATTACHED,
        True,
        "one",
        "/dev/vdb",
    )
    assert ours.uuid == calls.now.attachments[0].uuid
    for call in (calls.connect, calls.complete, calls.free):
        with pytest.raises(HoldProtected):
            call(ours.uuid)
    with pytest.raises(VolumeTaken):
        calls.reserve("one")
    with pytest.raises(VolumeTaken):
        calls.by_hand("reserve")
    with pytest.raises(VolumeTaken):
        calls.by_hand("attach", Taken(SERVER, None, "/dev/vdb", "rw"))
    with pytest.raises(HoldProtected):
        calls.by_hand("begin_detaching")
    for name, arguments in (("detach", [None]), ("check_end", []), ("route", [])):
        with pytest.raises(HoldProtected):
            calls.by_hand(name, *arguments, trusted=True)
    calls.apply(Event.DETACH)
    calls.by_hand("roll_detaching")
    assert calls.status() is Status.DETACHING


def test_volumes_go_by_hand(calls: Calls) -> None:
    taken = Taken(SERVER, None, "/dev/vdb", "rw")
    calls.by_hand("unreserve")
    calls.by_hand("reserve")
    with pytest.raises(VolumeTaken):
        calls.by_hand("reserve")
    with pytest.raises(VolumeTaken):
        calls.reserve()
    calls.by_hand("unreserve")
    assert calls.status() is Status.AVAILABLE
    calls.by_hand("reserve")
    calls.by_hand("attach", taken)
    calls.by_hand("attach", taken)
    assert (calls.status(), len(calls.found())) == (Status.IN_USE, 1)
    with pytest.raises(VolumeTaken):
        calls.by_hand("attach", attrs.evolve(taken, instance=OTHER))
    calls.by_hand("begin_detaching")
    with pytest.raises(VolumeBusy):
        calls.by_hand("begin_detaching")
    calls.by_hand("check_end", trusted=False)
    calls.by_hand("detach", OTHER, trusted=False)
    assert calls.status() is Status.DETACHING
    calls.by_hand("detach", None, trusted=False)
    assert calls.status() is Status.AVAILABLE
    calls.by_hand("detach", None, trusted=False)
    calls.by_hand("attach", Taken(None, "h1", "/dev/vdb", "ro"))
    assert calls.status() is Status.IN_USE
    calls.by_hand("detach", calls.found()[0].uuid, trusted=False)
    calls.by_hand("reserve")
    calls.by_hand("detach", None, trusted=False)
    assert calls.status() is Status.AVAILABLE


def test_no_server_writes_to_a_volume_during_its_copy(calls: Calls) -> None:
    """A clone captures one moment; a copy takes long, and needs the volume at rest."""
    hold = calls.reserve()
    snapshot = Snapshot(0, "s", "t", "u", calls.volume.id, 1, Status.CREATING, NOW, "b")
    with calls.begin() as db:
        snapshot = snapshots.add(db, snapshot)
    calls.backends.named("b").capabilities = attrs.evolve(
        calls.backends.named("b").capabilities, clones=False
    )
    with pytest.raises(VolumeCopied):
        calls.connect(hold.uuid)
    with calls.begin() as db:
        states.apply_event(db, Kind.SNAPSHOT, snapshot.id, Event.COMPLETE)
    copy = attrs.evolve(
        calls.volume, name="c", uuid=new_uuid(), status=Status.CREATING, source_id=calls.volume.id
    )
    with calls.begin() as db:
        copy = volumes.add(db, copy)
    with pytest.raises(VolumeCopied):
        calls.connect(hold.uuid)
    calls.backends.named("b").capabilities = attrs.evolve(
        calls.backends.named("b").capabilities, clones=True
    )
    calls.connect(hold.uuid)
    calls.free(hold.uuid)
    with calls.begin() as db:
        db.execute(
            update(schema.volumes).where(schema.volumes.c.id == copy.id).values(backend="other")
        )
    with pytest.raises(VolumeCopied):
        calls.reserve(host="h1")
    assert calls.status() is Status.AVAILABLE


def test_a_keyring_is_not_stored(calls: Calls) -> None:
    """Break: `src/bootvol/store/holds.py`: `exclude("keyring")` -> `exclude("x")`."""
    hold = calls.reserve()
    route = RbdRoute("p/n/i", (("::1", 3300), ("a", 6789)), "ceph", "u", new_uuid(), "[client.u]")
    with calls.begin() as db:
        holds.change(db, hold.uuid, {"route": route})
        assert holds.get(db, "t", hold.uuid).route == attrs.evolve(route, keyring=None)
        stored = db.execute(select(schema.holds.c.route)).scalar_one()
        assert "[client.u]" not in str(stored)
    assert "[client.u]" not in repr(route)


def test_descriptions_of_hosts_are_not_read(calls: Calls) -> None:
    """A tenant may describe hosts at length, and lists of attachments and volumes stay short.

    Break: `src/bootvol/store/holds.py`: `select(*_READ, ` -> `select(holds, `
    """
    hold = calls.reserve()
    calls.connect(hold.uuid, os="x" * 10_000)
    calls.complete(hold.uuid)
    read: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_more: object) -> None:
        read.append(statement)

    events.listen(calls.engine, "before_cursor_execute", note)
    with calls.begin() as db:
        assert holds.listed(db, "t")
        assert holds.of_volume(db, calls.volume.id)
        assert holds.attached(db, "t")
    assert read
    assert all("connector" not in each for each in read)


def test_two_servers_at_once_get_a_volume_once(calls: Calls) -> None:
    def reserve(instance: str) -> bool:
        try:
            calls.reserve(instance, "h1")
        except VolumeTaken:
            return False
        return True

    with ThreadPoolExecutor() as pool:
        assert sorted(pool.map(reserve, [SERVER, OTHER])) == [False, True]
    assert len(calls.found()) == 1


class Lives(RuleBasedStateMachine):
    """Any calls in any order: the status tells the truth, and no call takes a used volume away."""

    def __init__(self) -> None:
        super().__init__()
        self.engine = new_engine("sqlite://")
        schema.METADATA.create_all(self.engine)
        self.calls = Calls(self.engine)
        #: The servers that have the volume, and the hosts that were told the way, by hold.
        self.users = dict[str, str]()
        self.told = dict[str, str]()

    def teardown(self) -> None:
        self.engine.dispose()

    def some(self, data: st.DataObject) -> str:
        """Return the id of some hold."""
        return data.draw(st.sampled_from([each.uuid for each in self.calls.found()]))

    @rule(instance=st.sampled_from([SERVER, OTHER, None]), host=st.sampled_from([None, "h1", "h2"]))
    def reserve(self, instance: str | None, host: str | None) -> None:
        before = self.calls.found()
        try:
            hold = self.calls.reserve(instance, host)
        except BootvolError:
            assert self.calls.found() == before
            return
        assert not before or instance in {each.instance for each in before} - {None}
        if host is not None:
            self.told[hold.uuid] = host

    @precondition(lambda self: self.calls.found())
    @rule(data=st.data(), host=st.sampled_from(["h1", "h2", "h3"]))
    def connect(self, data: st.DataObject, host: str) -> None:
        uuid = self.some(data)
        try:
            self.calls.connect(uuid, host)
        except HostTaken:
            return
        self.told[uuid] = host

    @precondition(lambda self: self.calls.found())
    @rule(data=st.data())
    def complete(self, data: st.DataObject) -> None:
        uuid = self.some(data)
        self.calls.complete(uuid)
        self.users[uuid] = self.told.get(uuid, "")

    @precondition(lambda self: self.calls.found())
    @rule(data=st.data(), trusted=st.booleans())
    def free(self, data: st.DataObject, trusted: bool) -> None:
        uuid = self.some(data)
        (hold,) = [each for each in self.calls.found() if each.uuid == uuid]
        try:
            self.calls.free(uuid, trusted=trusted)
        except HoldProtected:
            assert not trusted
            return
        assert trusted or not (hold.instance and uuid in self.told)
        self.users.pop(uuid, None)
        self.told.pop(uuid, None)

    @rule(
        name=st.sampled_from(["reserve", "unreserve", "begin_detaching", "roll_detaching"]),
    )
    def move(self, name: str) -> None:
        try:
            self.calls.by_hand(name)
        except VolumeBusy:
            return

    @rule(instance=st.sampled_from([SERVER, OTHER]))
    def attach(self, instance: str) -> None:
        before = {each.uuid for each in self.calls.found()}
        try:
            self.calls.by_hand("attach", Taken(instance, None, "/dev/vdb", "rw"))
        except VolumeBusy:
            return
        self.users |= {each.uuid: "" for each in self.calls.found() if each.uuid not in before}

    @rule(trusted=st.booleans())
    def detach(self, trusted: bool) -> None:
        before = self.calls.found()
        try:
            self.calls.by_hand("detach", None, trusted=trusted)
        except (HoldProtected, InvalidRequest):
            assert before
            assert self.calls.found() == before
            return
        for each in before:
            self.users.pop(each.uuid, None)
            self.told.pop(each.uuid, None)

    @rule()
    def delete(self) -> None:
        free = not self.calls.found() and self.calls.status() is Status.AVAILABLE
        try:
            self.calls.delete()
        except VolumeBusy:
            assert not free
            return
        assert free
        self.calls = Calls(self.engine)

    @invariant()
    def the_status_is_true(self) -> None:
        found, status = self.calls.found(), self.calls.status()
        assert {each.uuid for each in found if each.state is HoldState.ATTACHED} == set(self.users)
        if self.users:
            assert status in (Status.IN_USE, Status.DETACHING)
        elif self.told:
            assert status is Status.ATTACHING
        elif found:
            assert status is Status.RESERVED
        else:
            # Reserved by hand.
            assert status in (Status.AVAILABLE, Status.ATTACHING)
        hosts = [each.host for each in found if each.host]
        assert len(hosts) == len(set(hosts))
        assert len(self.calls.now.attachments) == len(self.users)


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
