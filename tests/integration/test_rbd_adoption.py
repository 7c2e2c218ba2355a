"""The rbd backend takes over images and snapshots as Cinder makes them, on a real cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred

from bootvol.errors import BackendFailed, DiskNotAdoptable, DiskNotFound, VolumeInUse
from bootvol.model import StoredDisk
from bootvol.testing.backends import SIZE, noise, read, write
from bootvol.threads import Threads
from bootvol_plugins.rbd import images
from bootvol_plugins.rbd.backend import RbdBackend
from tests.ceph import Cluster
from tests.integration.test_rbd_backend import made

#: A volume and a snapshot of bootvol.
NAME = "volume-1"
SNAPSHOT = "snapshot-1"


@pytest.fixture
def namespace(ceph_cluster: Cluster) -> str:
    """A namespace for one test."""
    return ceph_cluster.add_namespace()


@pytest_twisted.async_yield_fixture
async def backend(
    threads: Threads, ceph_cluster: Cluster, namespace: str
) -> AsyncIterator[RbdBackend]:
    """A backend in the namespace.  No client is killed, so a few attempts suffice."""
    backend = made(threads, {**ceph_cluster.options(namespace), "patience": 2})
    yield backend
    await backend.close()


class Cinder:
    """Makes images in a namespace as Cinder's RBD driver does (cinder/volume/drivers/rbd.py)."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.rbd = cluster.bindings.rbd

    def volume(self, size: int = SIZE, **more: Any) -> str:
        """Make a volume with random bytes; return the name of the image."""
        name = f"volume-{uuid4()}"
        with self.pool() as pool:
            self.rbd.RBD().create(pool, name, size, **{"old_format": False, **more})
        with self.image(name) as image:
            image.write(noise(min(size, SIZE)), 0)
        return name

    def snapshot(self, volume: str) -> str:
        """Make a snapshot of a volume; return its name."""
        name = f"snapshot-{uuid4()}"
        with self.image(volume) as image:
            image.create_snap(name)
            image.protect_snap(name)
        return name

    def clone(self, volume: str, snapshot: str, form: int = 2) -> str:
        """Make a volume of a snapshot."""
        name = f"volume-{uuid4()}"
        self.cluster.clone(volume, snapshot, name, self.namespace, form)
        return name

    def pool(self) -> Any:
        """Open the namespace."""
        return self.cluster.pool(self.namespace)

    @contextmanager
    def image(self, name: str) -> Iterator[Any]:
        """Open an image."""
        with self.cluster.image(name, self.namespace) as image:
            yield image

    def names(self) -> list[str]:
        """Return the names of all images."""
        return self.cluster.images(self.namespace)


@pytest.fixture
def cinder(ceph_cluster: Cluster, namespace: str) -> Cinder:
    """Cinder, in the namespace of the backend."""
    return Cinder(ceph_cluster, namespace)


async def obstacle(backend: RbdBackend, place: str) -> str | None:
    """Return the obstacle against an image in the list."""
    (found,) = [each for each in await backend.stored_disks() if each.place == place]
    return found.obstacle


@ensureDeferred
async def test_a_volume_of_cinder_is_renamed_and_nothing_else(
    backend: RbdBackend, cinder: Cinder
) -> None:
    place = cinder.volume()
    with cinder.image(place) as image:
        number = image.id()
    assert await backend.stored_disks() == [StoredDisk(place, SIZE)]
    assert await backend.adopt(place, NAME, SIZE) == SIZE
    assert cinder.names() == [NAME]
    with cinder.image(NAME) as image:
        assert image.id() == number
    assert await read(backend, NAME, 0, SIZE) == noise(SIZE)
    assert await backend.stored_disks() == [StoredDisk(NAME, SIZE, NAME)]
    await backend.clone(NAME, SNAPSHOT, SIZE)
    await backend.delete(NAME)
    assert await read(backend, SNAPSHOT, 0, SIZE) == noise(SIZE)
    await backend.delete(SNAPSHOT)
    assert cinder.names() == []


@ensureDeferred
async def test_an_open_image_stays_with_its_opener(backend: RbdBackend, cinder: Cinder) -> None:
    """No image is taken from under a guest.

    Break: `plugins/bootvol_plugins/rbd/adoption.py`:
    `raise InUse(f"A guest or another program has image {place} open.")` -> `pass`.
    """
    place = cinder.volume()
    with cinder.image(place) as image:
        image.write(noise(512, 1), 0)
        assert await obstacle(backend, place) == "another program has the image open"
        with pytest.raises(VolumeInUse):
            await backend.adopt(place, NAME, SIZE)
    assert cinder.names() == [place]
    assert await obstacle(backend, place) is None
    assert await backend.adopt(place, NAME, SIZE) == SIZE


@ensureDeferred
async def test_what_is_no_whole_disk_stays(backend: RbdBackend, cinder: Cinder) -> None:
    place = cinder.volume()
    with cinder.pool() as pool:
        cinder.rbd.RBD().rename(pool, place, f"{place}.deleted")
        cinder.rbd.RBD().create(pool, "empty", 0, old_format=False)
    single = cinder.volume(features=cinder.rbd.RBD_FEATURE_EXCLUSIVE_LOCK)
    for refused, why in (
        (f"{place}.deleted", "the image was deleted, and stays for its clones"),
        ("empty", "the image is empty"),
        (single, "clones of the image are not possible"),
    ):
        assert await obstacle(backend, refused) == why
        with pytest.raises(DiskNotAdoptable, match=why):
            await backend.adopt(refused, NAME, SIZE)
    assert NAME not in cinder.names()


@ensureDeferred
async def test_no_name_leads_to_another_pool_or_namespace(
    backend: RbdBackend, cinder: Cinder, ceph_cluster: Cluster
) -> None:
    place, other = f"volume-{uuid4()}", ceph_cluster.add_namespace()
    for namespace in ("", other):
        ceph_cluster.create(place, SIZE, namespace)
    try:
        for name in (place, f"volumes/{place}", f"volumes/{other}/{place}", f"{other}/{place}"):
            with pytest.raises(DiskNotFound):
                await backend.adopt(name, NAME, SIZE)
    finally:
        ceph_cluster.remove(place)


@ensureDeferred
async def test_an_odd_size_is_rounded_up(backend: RbdBackend, cinder: Cinder) -> None:
    place = cinder.volume(SIZE + 512)
    assert await backend.adopt(place, NAME, SIZE) == 2 * SIZE
    found = await read(backend, NAME, 0, 2 * SIZE)
    assert found == noise(SIZE).ljust(2 * SIZE, b"\0")
    await backend.give_up(NAME, place)
    assert await backend.adopt(place, NAME, SIZE) == 2 * SIZE


@pytest.mark.parametrize("renamed", [False, True])
@ensureDeferred
async def test_a_rename_that_broke_off_is_completed(
    backend: RbdBackend, cinder: Cinder, renamed: bool
) -> None:
    """A client was killed before or after the change of the pool's directory."""
    place = cinder.volume()
    with cinder.image(place) as image:
        image.metadata_set("bootvol", NAME)
    for first, second in ((place, NAME), (NAME, place)):
        with cinder.pool() as pool:
            kept = pool.read(f"rbd_id.{first}")
            if renamed:
                cinder.rbd.RBD().rename(pool, first, second)
                pool.write_full(f"rbd_id.{first}", kept)
            else:
                pool.write_full(f"rbd_id.{second}", kept)
        if second == NAME:
            assert await backend.adopt(place, NAME, SIZE) == SIZE
        else:
            await backend.give_up(NAME, place)
        assert cinder.names() == [second]
        with cinder.pool() as pool, pytest.raises(cinder.cluster.bindings.rados.ObjectNotFound):
            pool.stat(f"rbd_id.{first}")
    with cinder.image(place) as image:
        assert image.read(0, SIZE) == noise(SIZE)


@ensureDeferred
async def test_a_crash_before_the_rename_takes_nothing(
    backend: RbdBackend, cinder: Cinder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The image keeps its name, and another volume may take the image."""
    place = cinder.volume()

    class Killed(Exception):
        pass

    def kill(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(cinder.rbd.RBD, "rename", kill, raising=False)
        with pytest.raises(Killed):
            await backend.adopt(place, NAME, SIZE)
    await backend.delete(NAME)
    await backend.give_up(NAME, place)
    assert await backend.stored_disks() == [StoredDisk(place, SIZE)]
    assert await backend.adopt(place, "volume-2", SIZE) == SIZE
    with pytest.raises(DiskNotFound):
        await backend.adopt(place, NAME, SIZE)


@ensureDeferred
async def test_a_snapshot_of_cinder_becomes_a_clone(backend: RbdBackend, cinder: Cinder) -> None:
    """The snapshot is protected, as Cinder's are, and has a clone of its own."""
    place = cinder.volume()
    snapshot = cinder.snapshot(place)
    clone = cinder.clone(place, snapshot)
    found = await backend.stored_snapshots()
    why = "the image with the snapshot is not taken over yet"
    assert found == [StoredDisk(snapshot, SIZE, None, why, place)]
    await backend.adopt(place, NAME, SIZE)
    await write(backend, NAME, 0, noise(SIZE, 1))
    # Until the snapshot is taken over, its volume stays.
    with pytest.raises(BackendFailed, match="snapshots that bootvol did not make"):
        await backend.delete(NAME)
    assert await backend.stored_snapshots() == [StoredDisk(snapshot, SIZE, None, None, NAME)]
    for _ in range(2):
        assert await backend.adopt_snapshot(NAME, snapshot, SNAPSHOT, SIZE) == SIZE
        assert await read(backend, SNAPSHOT, 0, SIZE) == noise(SIZE)
    assert await backend.stored_snapshots() == []
    await backend.delete(NAME)
    assert await backend.adopt(clone, "volume-2", SIZE) == SIZE
    await backend.delete(SNAPSHOT)
    assert await read(backend, "volume-2", 0, SIZE) == noise(SIZE)
    with cinder.image("volume-2") as image:
        assert image.metadata_get("bootvol.depth") == "1"
    await backend.delete("volume-2")
    assert cinder.names() == []


@ensureDeferred
async def test_a_snapshot_that_others_need_stays(backend: RbdBackend, cinder: Cinder) -> None:
    place = cinder.volume()
    needed, used = cinder.snapshot(place), f"volume-{uuid4()}.clone_snap"
    cinder.clone(place, needed, form=1)
    with cinder.image(place) as image:
        image.create_snap(used)
    await backend.adopt(place, NAME, SIZE)
    found = {each.place: each.obstacle for each in await backend.stored_snapshots()}
    assert found == {needed: None, used: "a clone needs the snapshot"}
    for refused in found:
        with pytest.raises(DiskNotAdoptable):
            await backend.adopt_snapshot(NAME, refused, SNAPSHOT, SIZE)
    assert SNAPSHOT not in cinder.names()
    with cinder.image(NAME) as image:
        assert {each["name"] for each in image.list_snaps()} == {needed, used}


@ensureDeferred
async def test_a_broken_off_clone_of_a_snapshot_is_made_again(
    backend: RbdBackend, cinder: Cinder, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = cinder.volume()
    snapshot = cinder.snapshot(place)
    await backend.adopt(place, NAME, SIZE)

    class Killed(Exception):
        pass

    def kill(*_: object) -> None:
        raise Killed

    for given_up in (False, True):
        with monkeypatch.context() as patch:
            patch.setattr(images.Images, "finish", kill)
            with pytest.raises(Killed):
                await backend.adopt_snapshot(NAME, snapshot, SNAPSHOT, SIZE)
        if given_up:
            await backend.give_up(SNAPSHOT, snapshot)
            assert cinder.names() == [NAME]
    assert await backend.adopt_snapshot(NAME, snapshot, SNAPSHOT, SIZE) == SIZE
    assert await read(backend, SNAPSHOT, 0, SIZE) == noise(SIZE)
