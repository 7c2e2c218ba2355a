"""Two daemons on one PostgreSQL database share the work, and agree on the state."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import attrs
import psycopg
import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from sqlalchemy import make_url
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs, formatEvent

from bootvol.store.database import Database
from bootvol.testing.backends import noise
from tests.daemons import TENANT, Answer, Running, reactor
from tests.processes import cli
from tests.waiting import until

CONTENT = noise(3 * 1024 * 1024)


@pytest_twisted.async_yield_fixture
async def daemons(
    tmp_path: Path, new_postgresql: Callable[[], str]
) -> AsyncIterator[tuple[Running, Running]]:
    """Two daemons with the same volumes and images, each with a state directory of its own."""
    url = new_postgresql()
    Database(make_url(url).set(drivername="postgresql+psycopg"), reactor).upgrade()
    first, second = (
        Running(
            tmp_path,
            state=f'url = "{url}"\ndirectory = "state-{name}"',
            backend="shared = true",
        )
        for name in "ab"
    )
    yield first, second
    await gatherResults([Deferred.fromCoroutine(each.stop()) for each in (first, second)])


@ensureDeferred
async def test_both_show_and_do_the_same(daemons: tuple[Running, Running]) -> None:
    first, second = daemons
    (first.images / "disk.raw").write_bytes(CONTENT)
    made = [await each.create("disk.raw") for each in (first, second) * 3]
    for number in made:
        for each in daemons:
            assert await each.until(number, "available", "error") == "available"
    for file in first.files():
        with file.open("rb") as volume:
            assert volume.read(len(CONTENT)) == CONTENT
    # One daemon deletes a volume made by the other.
    for number, each in zip(made, (second, first) * 3, strict=True):
        assert (await each.call("DELETE", f"os-volumes/{number}")).status == 202
    for number in made:
        await first.until(number, "gone")
    assert first.files() == []


@ensureDeferred
async def test_each_shows_at_once_what_the_other_has_answered(
    daemons: tuple[Running, Running],
) -> None:
    """Both keep answers that they have given before."""
    paths = [f"/v1.1/{TENANT}/os-volumes", f"/volume/v3/{TENANT}/volumes"]
    for number, writer in enumerate(daemons * 5):
        for reader in daemons:
            for path in paths:
                assert len((await reader.request("GET", path)).json["volumes"]) == number
        await writer.call("POST", "os-volumes", {"volume": {"size": 1}})


@ensureDeferred
async def test_a_disk_changes_hands_once(daemons: tuple[Running, Running]) -> None:
    """Two requests for one disk reach two daemons at the same time, on their way in and out."""
    first, second = daemons
    root, places = f"/volume/v3/{TENANT}", [f"volume-{number}" for number in range(4)]
    for each in places:
        (first.volumes / each).write_bytes(each.encode())

    def asked(daemon: Running, path: str, body: object) -> Deferred[Answer]:
        return Deferred.fromCoroutine(daemon.request("POST", f"{root}/{path}", body, "root"))

    bodies = [
        {"volume": {"host": "bootvol@local#local", "ref": {"source-name": each}}} for each in places
    ]
    answers = await gatherResults(
        [asked(each, "os-volume-manage", body) for body in bodies for each in daemons]
    )
    assert {each.status for each in answers} == {202}
    made: dict[str, list[str]] = {"available": [], "error": []}
    for answer in answers:
        path = f"{root}/volumes/{answer.json['volume']['id']}"
        shown = await until(
            lambda path=path: second.request("GET", path, None, "root"),  # type: ignore[misc]
            lambda found: found.json["volume"]["status"] in made,
        )
        made[shown.json["volume"]["status"]].append(shown.json["volume"]["id"])
    assert [len(each) for each in made.values()] == [4, 4]
    assert len(first.files()) == 4
    ids = made["available"] + made["error"]
    answers = await gatherResults(
        [
            asked(each, f"volumes/{uuid}/action", {"os-unmanage": None})
            for uuid in ids
            for each in daemons
        ]
    )
    assert {each.status for each in answers} <= {202, 400, 404}
    for uuid in ids:
        await until(
            lambda uuid=uuid: first.request("GET", f"{root}/volumes/{uuid}", None, "root"),  # type: ignore[misc]
            lambda found: found.status == 404,
        )
    assert {each.name for each in first.files()} == {f"volume-{each}" for each in made["available"]}
    assert {_begin(each) for each in first.files()} == set(places)


def _begin(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(8).decode()


@ensureDeferred
async def test_quota_is_exact_across_daemons(daemons: tuple[Running, Running]) -> None:
    """The quota is exact while two daemons accept creates.

    Break: `src/bootvol/store/volumes.py`: `if connection.dialect.name == "postgresql":` -> `if
    connection.dialect.name == "other":`.
    """
    wanted = {"volume": {"size": 1}}
    asked = [each.call("POST", "os-volumes", wanted) for each in daemons * 20]
    answers = await gatherResults([Deferred.fromCoroutine(each) for each in asked])
    assert sorted(answer.status for answer in answers) == [200] * 10 + [413] * 30


@ensureDeferred
async def test_one_goes_on_with_what_the_other_let_go(daemons: tuple[Running, Running]) -> None:
    first, second = daemons
    (first.images / "disk.raw").write_bytes(CONTENT)
    numbers = [await first.create("disk.raw") for _ in range(6)]
    await first.stop()
    for number in numbers:
        assert await second.until(number, "available", "error") == "available"


@attrs.frozen
class Hosts:
    """Two daemons on hosts of their own: each has its own disk under the same backend name.

    :ivar daemons: the daemons, by the names of their hosts.
    """

    folder: Path
    url: str
    daemons: dict[str, Running]

    def start(self, name: str, backend: str = "", more: str = "") -> Running:
        """Start the daemon of a host.

        :param backend: TOML to add to the table of the daemon's backend.
        :param more: TOML to add to the table ``[state]``.
        """
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        state = f'url = "{self.url}"\ndirectory = "state"\n{more}'
        self.daemons[name] = Running(folder, state=state, backend=backend)
        (folder / "images" / "disk.raw").write_bytes(CONTENT)
        return self.daemons[name]

    def execute(self, statement: str) -> None:
        """Change the database."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement.encode())


@pytest_twisted.async_yield_fixture
async def hosts(tmp_path: Path, new_postgresql: Callable[[], str]) -> AsyncIterator[Hosts]:
    """The daemons of hosts a and b."""
    url = new_postgresql()
    Database(make_url(url).set(drivername="postgresql+psycopg"), reactor).upgrade()
    hosts = Hosts(tmp_path, url, {})
    for name in "ab":
        hosts.start(name)
    yield hosts
    for each in hosts.daemons.values():
        await each.stop()


@ensureDeferred
async def test_each_host_keeps_its_own_volumes(hosts: Hosts) -> None:
    """Each daemon works on its own disk only.

    Break: `src/bootvol/store/claims.py`: `table.c.host.in_(["", request.host])` ->
    `table.c.id.is_not(None)`.
    """
    a, b = hosts.daemons["a"], hosts.daemons["b"]
    made = {each: [await each.create("disk.raw") for _ in range(4)] for each in (a, b)}
    for daemon, numbers in made.items():
        for number in numbers:
            assert await daemon.until(number, "available", "error") == "available"
        # A cached image may still lie beside them.
        files = [each for each in daemon.files() if each.name.startswith("volume-")]
        assert len(files) == 4
        for file in files:
            with file.open("rb") as volume:
                assert volume.read(len(CONTENT)) == CONTENT
    # Requests go to the other daemon.
    for daemon, other in ((a, b), (b, a)):
        for number in made[daemon]:
            assert (await other.call("DELETE", f"os-volumes/{number}")).status == 202
        for number in made[daemon]:
            assert await other.until(number, "gone", "error") == "gone"
    await until(lambda: a.files() + b.files(), lambda left: left == [])


@ensureDeferred
async def test_copies_are_made_beside_their_origin(hosts: Hosts) -> None:
    a, b = hosts.daemons["a"], hosts.daemons["b"]
    volume = await a.create("disk.raw")
    await a.until(volume, "available")
    snapshot = await b.snapshot(volume)
    assert await b.until(snapshot, "available", "error", kind="snapshot") == "available"
    body = {"volume": {"snapshot_id": snapshot, "size": None}}
    number = (await b.call("POST", "os-volumes", body)).json["volume"]["id"]
    assert await b.until(number, "available", "error") == "available"
    assert len(a.files()) == 3
    assert b.files() == []
    address = f"os-volumes/{number}/connection"
    refused = await b.call("GET", address, token="root")
    assert refused.status == 400
    assert "can be reached on host" in str(refused.json)
    assert (await a.call("GET", address, token="root")).status == 200


@ensureDeferred
async def test_a_volume_waits_for_its_host(hosts: Hosts) -> None:
    a, b = hosts.daemons["a"], hosts.daemons["b"]
    volume, other = await a.create(), await a.create()
    for number in (volume, other):
        await a.until(number, "available")
    snapshot = await a.snapshot(other)
    await a.until(snapshot, "available", kind="snapshot")
    await a.stop()
    assert (await b.call("DELETE", f"os-volumes/{volume}")).status == 202
    assert (await b.call("GET", f"os-volumes/{volume}/error")).json["error"] is None
    hosts.execute("UPDATE daemons SET lease_until = 0")
    for path in (f"os-volumes/{volume}", f"os-snapshots/{snapshot}"):
        error = (await b.call("GET", f"{path}/error")).json["error"]
        assert (error["code"], error["retryable"]) == ("host-away", True)
        assert "start the daemon of that host" in error["remedy"]
    assert await b.status(volume) == "deleting"
    again = hosts.start("a")
    assert await b.until(volume, "gone", "error") == "gone"
    assert len(again.files()) == 2


@ensureDeferred
async def test_one_directory_of_two_hosts_must_be_declared(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bootvol.worker.stores.POLL", 0.3)
    a, b = hosts.daemons["a"], hosts.daemons["b"]
    volume = await a.create("disk.raw")
    await a.until(volume, "available")
    await b.stop()
    shutil.rmtree(b.volumes)
    b.volumes.symlink_to(a.volumes)
    hosts.execute("DELETE FROM stores WHERE host <> (SELECT host FROM volumes)")
    with capturedLogs() as logged:
        undeclared = hosts.start("b")
        waits = await undeclared.create()
        await until(lambda: [each for each in logged if "shared = true" in formatEvent(each)])
    assert await undeclared.status(waits) == "creating"
    await gatherResults([Deferred.fromCoroutine(each.stop()) for each in (a, undeclared)])
    # In any order, and the volumes from before are of all hosts now.
    declared = [hosts.start(name, "shared = true") for name in "ba"]
    assert await declared[0].until(waits, "available", "error") == "available"
    await declared[1].stop()
    for number in (volume, waits):
        assert (await declared[0].call("DELETE", f"os-volumes/{number}")).status == 202
        assert await declared[0].until(number, "gone", "error") == "gone"
    assert declared[0].files() == []


@ensureDeferred
async def test_a_host_gets_another_name(hosts: Hosts) -> None:
    """The daemon finds its store again, and the volumes there."""
    a, b = hosts.daemons["a"], hosts.daemons["b"]
    volume = await a.create("disk.raw")
    await a.until(volume, "available")
    await a.stop()
    shutil.rmtree(a.folder / "state")
    # The former daemon counts for 30 seconds.
    hosts.execute("UPDATE daemons SET lease_until = 0")
    again = hosts.start("a")
    assert (await b.call("DELETE", f"os-volumes/{volume}")).status == 202
    assert await again.until(volume, "gone", "error") == "gone"
    assert again.files() == []


@ensureDeferred
async def test_the_volumes_of_a_lost_host_can_be_forgotten(hosts: Hosts) -> None:
    """As docs/operations.md tells."""
    a, b = hosts.daemons["a"], hosts.daemons["b"]
    volume = await a.create("disk.raw")
    await a.until(volume, "available")
    await a.stop()
    with psycopg.connect(hosts.url) as connection:
        (host,) = connection.execute("SELECT host FROM volumes").fetchone() or ("",)
    shutil.rmtree(a.folder)
    await b.stop()
    named = f'host = "{host}"'
    folder = hosts.folder / "b"
    shutil.rmtree(folder / "volumes")
    config = b.config
    config.write_text(
        config.read_text().replace('directory = "state"', f'directory = "state"\n{named}')
    )
    done = await deferToThread(cli, "db", "forget-store", "local", "--config", str(config))
    assert done.returncode == 0, done.stderr
    again = hosts.start("b", more=named)
    for status in "error", "gone":
        assert (await again.call("DELETE", f"os-volumes/{volume}")).status == 202
        assert await again.until(volume, "gone", "error") == status


@ensureDeferred
async def test_one_server_gets_a_volume(daemons: tuple[Running, Running]) -> None:
    """Servers of another system ask both daemons at once; a deletion comes in between."""

    async def ask(daemon: Running, method: str, path: str, body: object = None) -> Answer:
        headers = {"OpenStack-API-Version": "volume 3.54"}
        return await daemon.request(method, f"/volume/v3/{path}", body, headers=headers)

    async def take(daemon: Running, volume: str, last: int) -> Answer:
        server = f"aaaaaaaa-0000-4000-8000-00000000000{last}"
        connector = {"host": f"compute{last}"}
        wanted = {"volume_uuid": volume, "instance_uuid": server, "connector": connector}
        return await ask(daemon, "POST", "attachments", {"attachment": wanted})

    async def shown(daemon: Running, volume: str) -> str:
        answer = await ask(daemon, "GET", f"volumes/{volume}")
        return "gone" if answer.status == 404 else str(answer.json["volume"]["status"])

    first, second = daemons
    for _ in range(6):
        made = await ask(first, "POST", "volumes", {"volume": {"size": 1}})
        volume = made.json["volume"]["id"]
        await until(partial(shown, second, volume), lambda found: found == "available")
        calls = (
            take(first, volume, 1),
            take(second, volume, 2),
            ask(first, "DELETE", f"volumes/{volume}"),
        )
        answers = await gatherResults([Deferred.fromCoroutine(each) for each in calls])
        statuses = [each.status for each in answers]
        assert sorted(statuses) in ([200, 400, 400], [202, 400, 400], [202, 400, 404])
        listed = [
            (await ask(each, "GET", f"attachments?volume_id={volume}")).json["attachments"]
            for each in daemons
        ]
        assert listed[0] == listed[1]
        if statuses[2] == 202:
            assert listed[0] == []
            await until(partial(shown, second, volume), lambda found: found == "gone")
        else:
            assert [each["status"] for each in listed[0]] == ["attaching"]
            assert [await shown(each, volume) for each in daemons] == ["attaching"] * 2
