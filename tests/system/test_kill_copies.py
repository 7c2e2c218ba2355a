"""kill -9 among copies: each volume is right afterwards, and no space is lost."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import attrs
from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread

from bootvol.model import GIB
from bootvol.testing.backends import noise
from tests.daemons import TENANT, volumes_in
from tests.processes import Process
from tests.waiting import LONG_LIMIT, block_until

CONTENT = noise(24 * 1024 * 1024 + 333)
KILLS = 15
ROOT = f"/volume/v3/{TENANT}"
CONFIG = """
[imports]
buffer_kib = 256
checkpoint_mib = 1

[[sources]]
name = "own"
plugin = "directory"
directory = "own"
writable = true

[quota]
volumes = 1000
gigabytes = 1000
snapshots = 1000
"""
#: A second backend.
OTHER = """
[[backends]]
name = "other"
plugin = "file"
directory = "others"
cache_gib = 0
"""


@attrs.frozen
class Stored:
    """The volumes and snapshots in the store of a backend.

    :ivar backend: name of the backend.
    :ivar names: returns the names of all.
    :ivar read: returns the first bytes of one, by its name and their number.
    """

    backend: str
    names: Callable[[], list[str]]
    read: Callable[[str, int], bytes]


def in_folder(backend: str, folder: Path) -> Stored:
    """Return what is stored in a folder."""

    def read(name: str, length: int) -> bytes:
        with (folder / name).open("rb") as held:
            return held.read(length)

    return Stored(backend, lambda: [each.name for each in volumes_in(folder)], read)


@ensureDeferred
async def test_killed_among_copies(tmp_path: Path) -> None:
    """The clients' requests are random; a failure prints the seed."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    other = in_folder("other", tmp_path / "others")
    await deferToThread(kill_among_copies, tmp_path, OTHER, other, KILLS, random.Random(seed))


def kill_among_copies(
    folder: Path, table: str, other: Stored, kills: int, chance: random.Random
) -> None:
    """Kill a daemon while volumes are copied within a backend of files and another one.

    :param table: TOML of the other backend.
    """
    (folder / "own").mkdir()
    daemon = Process(folder, CONFIG + table, backend="cache_gib = 0")
    (daemon.images / "disk").write_bytes(CONTENT)
    try:
        for name, backend in (("near", "local"), ("far", other.backend)):
            specs = {"volume_backend_name": backend}
            call(daemon, "POST", "types", {"volume_type": {"name": name, "extra_specs": specs}})
        for _ in range(3):
            daemon.create("disk")
        daemon.until_settled()
        for _ in range(kills):
            for _ in range(chance.randint(1, 4)):
                ask(daemon, chance)
            time.sleep(chance.uniform(0, 1))
            daemon.stop(signal.SIGKILL)
            daemon.start()
        assert set(daemon.until_settled()) == {"available"}
        check_volumes(daemon, [in_folder("local", daemon.volumes), other])
        check_images(daemon)
        assert "Traceback" not in daemon.log.read_text()
    finally:
        daemon.stop()


def check_volumes(daemon: Process, stores: Collection[Stored]) -> None:
    """Check that each volume and snapshot has its data where it should, and nothing else exists."""
    volumes = call(daemon, "GET", "volumes/detail")["volumes"]
    snapshots = call(daemon, "GET", "snapshots")["snapshots"]
    block_until(
        lambda: sum(len(each.names()) for each in stores),
        lambda found: found == len(volumes) + len(snapshots),
        LONG_LIMIT,
    )
    places = [each["os-vol-host-attr:host"].partition("#")[2] for each in volumes]
    for store in stores:
        names = store.names()
        mine = [each for each in names if each.startswith("volume-")]
        assert len(mine) == places.count(store.backend)
        for name in names:
            held = store.read(name, len(CONTENT) + 1024 * 1024)
            assert held == CONTENT + bytes(1024 * 1024)


def check_images(daemon: Process) -> None:
    """Check that each image is whole."""
    images = daemon.call("GET", "/image/v2/images")["images"]
    own = [each for each in images if each["id"] != "disk"]
    assert [each["status"] for each in own] == ["active"] * len(own)
    stored = list((daemon.folder / "own" / ".bootvol-images").glob("*.disk"))
    assert len(stored) == len(own)
    for file in stored:
        assert file.stat().st_size == GIB
        with file.open("rb") as held:
            assert held.read(len(CONTENT)) == CONTENT


def call(daemon: Process, method: str, path: str, body: Any = None) -> Any:
    """Send a request in the newest microversion."""
    headers = {"OpenStack-API-Version": "volume latest"}
    return daemon.call(method, f"{ROOT}/{path}", body, headers=headers)


def ask(daemon: Process, chance: random.Random) -> None:
    """Send a random request; a refusal is a valid answer, too."""
    volumes = [each["id"] for each in call(daemon, "GET", "volumes?sort=id:asc")["volumes"]]
    snapshots = call(daemon, "GET", "snapshots")["snapshots"]
    volume = chance.choice(volumes)
    latest = {each["volume_id"]: each["id"] for each in reversed(snapshots)}
    kind = chance.choice(["near", "far"])
    asked: tuple[str, str, Any] = chance.choice(
        [
            ("POST", "volumes", {"volume": {"source_volid": volume}}),
            ("POST", "volumes", {"volume": {"source_volid": volume, "volume_type": kind}}),
            ("POST", "snapshots", {"snapshot": {"volume_id": volume}}),
            *[("DELETE", f"snapshots/{each}", None) for each in [*latest.values()][:1]],
            *[("DELETE", f"volumes/{each}", None) for each in volumes[3:4]],
            act(volume, "os-retype", {"new_type": kind, "migration_policy": "on-demand"}),
            act(volume, "os-retype", {"new_type": kind, "migration_policy": "on-demand"}),
            *[
                act(*each)
                for each in [(on, "revert", {"snapshot_id": s}) for on, s in latest.items()]
            ],
            act(volume, "os-volume_upload_image", {"image_name": "x"}),
        ]
    )
    try:
        call(daemon, *asked)
    except HTTPError as answer:
        refused = answer.code
        answer.close()
    else:
        return
    assert refused in {400, 404, 409}, asked


def act(volume: str, name: str, parameters: object) -> tuple[str, str, Any]:
    """Return the request for an action."""
    return "POST", f"volumes/{volume}/action", {name: parameters}
