"""Volumes over a real socket, as clients use them."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import pytest
from pytest_twisted import ensureDeferred
from sqlalchemy import create_engine, insert
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from bootvol.errors import ConfigurationError
from bootvol.model import GIB, UNIDENTIFIED
from bootvol.store.schema import imports, volumes
from bootvol.testing.backends import noise
from tests.daemons import OTHER_TENANT, TENANT, Running, pause, reactor

GOLDEN = Path(__file__).parent.parent / "golden"
PLAIN = {
    "attachments", "availabilityZone", "createdAt", "displayDescription", "displayName", "id",
    "metadata", "size", "snapshotId", "status", "volumeType",
}  # fmt: skip


def golden(name: str) -> Any:
    """Return a sample from the specification."""
    return json.loads((GOLDEN / name).read_text())


@ensureDeferred
async def test_shows_the_sample_of_the_specification(running: Running) -> None:
    sample = golden("hp-bootable-volumes-show.json")
    _insert(running, 5, "test1", 15, datetime(2012, 11, 8, 16, 39, 5, 123456, UTC))
    answer = await running.call("GET", "hp-bootable-volumes/5")
    assert answer.status == 200
    assert answer.json == sample
    assert list(map(type, answer.json["volume"])) == list(map(type, sample["volume"]))
    assert (await running.call("GET", "hp-bootable-volumes")).json == {
        "volumes": [sample["volume"]]
    }
    del sample["volume"]["sourceImageRef"]
    assert (await running.call("GET", "os-volumes/5")).json == sample


@ensureDeferred
async def test_not_found_is_the_sample_of_the_specification(running: Running) -> None:
    sample = json.dumps(golden("hp-bootable-volumes-fault-404.json"))
    for missing in ("5", "0", "-1", "x", "99999999999999999999", "%C3%A9"):
        answer = await running.call("GET", f"hp-bootable-volumes/{missing}")
        shown = "é" if missing == "%C3%A9" else missing
        assert answer.status == 404
        assert answer.json == json.loads(sample.replace("[volume_id]", shown))


@ensureDeferred
async def test_a_bootable_volume_from_creation_to_deletion(running: Running) -> None:
    content = noise(5 * 1024 * 1024 + 100)
    (running.images / "disk.raw").write_bytes(content)
    wanted = {
        "size": 1,
        "display_name": "root",
        "display_description": "my root",
        "imageRef": "disk.raw",
        "metadata": {"key": "value"},
    }
    answer = await running.call("POST", "os-volumes", {"volume": wanted})
    made = answer.json["volume"]
    assert answer.status == 200
    assert set(made) == PLAIN
    assert made["status"] == "creating"
    assert made["displayName"] == "root"
    assert made["displayDescription"] == "my root"
    assert made["metadata"] == {"key": "value"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", made["createdAt"])

    number = made["id"]
    assert await running.until(number, "available", "error") == "available"
    shown = (await running.call("GET", f"hp-bootable-volumes/{number}")).json["volume"]
    assert shown == {**made, "status": "available", "sourceImageRef": "disk.raw"}
    progress = await running.progress(number)
    rate = progress.pop("bytesPerSecond")
    assert rate > 0
    assert progress == {
        "phase": "done",
        "position": None,
        "cached": False,
        "bytesDone": len(content),
        "bytesTotal": len(content),
        "etaSeconds": 0,
        "attempt": 1,
        "warnings": [attrs.asdict(UNIDENTIFIED)],
        "error": None,
    }
    (file,) = running.files()
    assert file.stat().st_size == GIB
    with file.open("rb") as volume:
        assert volume.read(len(content) + 4096) == content + bytes(4096)

    answer = await running.call("DELETE", f"os-volumes/{number}")
    assert (answer.status, answer.body) == (202, b"")
    await running.until(number, "gone")
    assert running.files() == []


@ensureDeferred
async def test_a_plain_volume(running: Running) -> None:
    number = await running.create()
    await running.until(number, "available")
    assert (await running.call("GET", f"hp-bootable-volumes/{number}")).status == 404
    assert (await running.call("GET", f"hp-bootable-volumes/{number}/import")).status == 404
    assert (await running.call("GET", "hp-bootable-volumes")).json == {"volumes": []}
    assert (await running.call("GET", f"os-volumes/{number}/error")).json == {"error": None}
    (file,) = running.files()
    assert file.stat().st_size == GIB
    assert file.stat().st_blocks < 100, "a new volume takes no space"


@ensureDeferred
async def test_what_was_answered_shows_at_once(running: Running) -> None:
    paths = ("os-volumes", "os-volumes/detail", "hp-bootable-volumes")
    (running.images / "disk.raw").write_bytes(noise(1000))

    async def listed() -> list[list[int]]:
        """List twice, as clients do: the second answer may be cached."""
        found = [(await running.call("GET", path)).json["volumes"] for path in paths * 2]
        numbers = [[each["id"] for each in volumes] for volumes in found]
        assert numbers[:3] == numbers[3:]
        return numbers[:3]

    made: list[int] = []
    for _ in range(3):
        made.append(await running.create("disk.raw"))
        assert await listed() == [made] * 3
        other = await running.request("GET", f"/v1.1/{OTHER_TENANT}/os-volumes", token="bob")
        assert other.json == {"volumes": []}
    for number in made:
        await running.until(number, "available")
        assert (await running.call("DELETE", f"os-volumes/{number}")).status == 202
        assert await running.status(number) in ("deleting", "gone")
        await running.until(number, "gone")
    assert await listed() == [[]] * 3


@ensureDeferred
async def test_one_daemon_alone_uses_an_embedded_database(running: Running) -> None:
    with pytest.raises(ConfigurationError, match=r"^state\.url: another daemon uses "):
        Running(running.folder, state='url = "sqlite:///bootvol.db"\ndirectory = "another"')


@ensureDeferred
async def test_lists_ascend_and_are_paged(running: Running) -> None:
    made = [await running.create() for _ in range(4)]
    for path in ("os-volumes", "os-volumes/detail", "os-volumes/detail.json", "os-volumes.json"):
        listed = (await running.call("GET", path)).json["volumes"]
        assert [each["id"] for each in listed] == made
    for query, expected in (
        ("limit=2", made[:2]),
        ("limit=2&offset=1", made[1:3]),
        ("offset=3", made[3:]),
        ("offset=99999999999999999999999", []),
        ("limit=0", made),
        ("limit=5000&nobody=knows", made),
    ):
        listed = (await running.call("GET", f"os-volumes?{query}")).json["volumes"]
        assert [each["id"] for each in listed] == expected, query
    # Parameters for another list are refused, even with a cached list.
    for path in ("os-volumes", "os-snapshots", "hp-bootable-volumes"):
        for query in ("marker=1", "all_tenants=1", "sort_key=size", "status=error", "name=x"):
            assert (await running.call("GET", f"{path}?{query}")).status == 400, query
        assert (await running.call("GET", f"{path}?all_tenants=0")).status == 200


@ensureDeferred
async def test_lists_of_cinders_are_filtered_or_refused(running: Running) -> None:
    for name in ("one", "two"):
        wanted = {"volume": {"size": 1, "display_name": name}}
        assert (await running.call("POST", "os-volumes", wanted)).status == 200
    for query, names in (
        ("name=one", ["one"]),
        ("display_name=two", ["two"]),
        ("name=three", []),
        ("status=error", []),
        ("all_tenants=0", ["one", "two"]),
    ):
        listed = (await running.call("GET", f"volumes?{query}")).json["volumes"]
        assert [each["display_name"] for each in listed] == names, query
    for query in ("all_tenants=1", "sort=name:asc", "bootable=true", "host=x", "marker=none"):
        assert (await running.call("GET", f"volumes?{query}")).status == 400, query


@ensureDeferred
async def test_ids_are_spelled_either_way(running: Running) -> None:
    (running.images / "4").write_bytes(noise(1000))
    for size, image in ((1, "4"), ("1", 4)):
        answer = await running.call(
            "POST",
            "os-volumes",
            {"volume": {"size": size, "imageRef": image, "snapshot_id": None, "status": None}},
        )
        assert answer.status == 200
        number = answer.json["volume"]["id"]
        assert await running.until(number, "available", "error") == "available"
        shown = (await running.call("GET", f"hp-bootable-volumes/{number}")).json["volume"]
        assert shown["sourceImageRef"] == "4"


@ensureDeferred
async def test_an_image_url_may_end_in_the_id(running: Running) -> None:
    (running.images / "4").write_bytes(noise(1000))
    number = await running.create("http://glance.example:9292/v1/images/4")
    shown = (await running.call("GET", f"hp-bootable-volumes/{number}")).json["volume"]
    assert shown["sourceImageRef"] == "4"


@ensureDeferred
async def test_a_tenant_sees_only_its_own(running: Running) -> None:
    """No call shows or deletes another tenant's volume.

    Break: `src/bootvol/store/volumes.py`: `_shown().where(volumes.c.id == volume_id,
    volumes.c.tenant == tenant)` -> `_shown().where(volumes.c.id == volume_id)`.
    Break: `src/bootvol/store/volumes.py`: `_shown().where(volumes.c.tenant == tenant).order_by` ->
    `_shown().order_by`.
    """
    (running.images / "disk.raw").write_bytes(noise(1000))
    number = await running.create("disk.raw")
    other = f"/v1.1/{OTHER_TENANT}"
    for path in ("os-volumes", "os-volumes/detail", "hp-bootable-volumes"):
        answer = await running.request("GET", f"{other}/{path}", token="bob")
        assert answer.json == {"volumes": []}
    for method, path in (
        ("GET", f"os-volumes/{number}"),
        ("DELETE", f"os-volumes/{number}"),
        ("GET", f"os-volumes/{number}/error"),
        ("GET", f"hp-bootable-volumes/{number}"),
        ("GET", f"hp-bootable-volumes/{number}/import"),
    ):
        assert (await running.request(method, f"{other}/{path}", token="bob")).status == 404
    assert await running.until(number, "available", "error") == "available"


@ensureDeferred
async def test_quota_is_exact_when_many_ask_at_once(running: Running) -> None:
    """With many creates at once, exactly the number allowed by the quota succeeds.

    Break: `src/bootvol/service/quotas.py`: `if 0 <= self.volumes < used.volumes + 1:` ->
    `if 0 <= self.volumes < used.volumes:`.
    """
    wanted = {"volume": {"size": 1}}
    asked = [running.call("POST", "os-volumes", wanted) for _ in range(40)]
    answers = await gatherResults([Deferred.fromCoroutine(each) for each in asked])
    assert sorted(answer.status for answer in answers) == [200] * 10 + [413] * 30
    number = next(answer.json["volume"]["id"] for answer in answers if answer.status == 200)
    await running.until(number, "available")
    await running.call("DELETE", f"os-volumes/{number}")
    await running.until(number, "gone")
    assert await running.create(), "a deletion gives quota back"


@ensureDeferred
async def test_a_client_that_leaves_does_not_stop_its_call(running: Running) -> None:
    protocol = await connectProtocol(
        HostnameEndpoint(reactor, b"127.0.0.1", running.port), Protocol()
    )
    protocol.transport.write(
        f"POST /v1.1/{TENANT}/os-volumes HTTP/1.1\r\nHost: x\r\nX-Auth-Token: ann\r\n"
        "Content-Type: application/json\r\nContent-Length: 20\r\n\r\n"
        '{"volume":{"size":1}'.encode()
    )
    protocol.transport.write(b"}")
    protocol.transport.loseConnection()
    await pause(0.5)
    listed = (await running.call("GET", "os-volumes")).json["volumes"]
    assert [each["status"] for each in listed] in ([], ["available"]), "nothing is left half done"


class Collector(Protocol):
    """Collects the answers of the daemon until the end of the connection."""

    def __init__(self) -> None:
        self.answers = b""
        self.ended: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.answers += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended.callback(None)


@ensureDeferred
async def test_a_client_may_close_its_sending_half(running: Running) -> None:
    body = b'{"volume":{"size":1}}'
    request = (
        f"POST /v1.1/{TENANT}/os-volumes HTTP/1.1\r\nHost: x\r\nX-Auth-Token: ann\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body
    endpoint = HostnameEndpoint(reactor, b"127.0.0.1", running.port)
    clients = [await connectProtocol(endpoint, Collector()) for _ in range(4)]
    for each in clients:
        each.transport.write(request * 2)
        each.transport.loseWriteConnection()
    for each in clients:
        await each.ended
        assert each.answers.count(b"200 OK") == 2


@ensureDeferred
async def test_images_are_listed(running: Running) -> None:
    (running.images / "disk.raw").write_bytes(noise(1000))
    (brief,) = (await running.call("GET", "images")).json["images"]
    assert brief["id"] == brief["name"] == "disk.raw"
    assert sorted(brief) == ["id", "links", "name"]
    (image,) = (await running.call("GET", "images/detail.json")).json["images"]
    assert image["id"] == image["name"] == "disk.raw"
    assert image["OS-EXT-IMG-SIZE:size"] == 1000


@ensureDeferred
async def test_only_admins_learn_where_a_volume_lives(running: Running) -> None:
    """Only admins see the host of a volume.

    Break: `src/bootvol/policy.py`: `connection: _Roles = Field(default=_OPERATORS)` -> `connection:
    _Roles = Field(default=_WRITERS)`.
    """
    number = await running.create()
    await running.until(number, "available")
    path = f"os-volumes/{number}/connection"
    assert (await running.call("GET", path)).status == 403
    answer = await running.call("GET", path, token="root")
    assert answer.json == {
        "connection": {
            "kind": "file",
            "address": str(running.files()[0]),
            "format": "raw",
            "readOnly": False,
        }
    }


def _insert(running: Running, number: int, name: str, size: int, created: datetime) -> None:
    """Insert a bootable volume into the database of a daemon."""
    engine = create_engine(f"sqlite:///{running.folder / 'bootvol.db'}")
    with engine.begin() as connection:
        connection.execute(
            insert(volumes).values(
                id=number,
                name=f"volume-{number}",
                tenant=TENANT,
                user="ann",
                size_gib=size,
                status="available",
                created_at=created,
                availability_zone="nova",
                backend="local",
                image_id="4",
                display_name=name,
                metadata={},
            )
        )
        connection.execute(
            insert(imports).values(
                volume_id=number,
                image={"id": "4", "source": "images", "name": "4", "digest": None},
                source="images",
                phase="done",
                bytes_done=1,
                bytes_per_second=1,
                attempt=1,
            )
        )
    engine.dispose()
