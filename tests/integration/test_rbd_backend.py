"""The rbd backend alone, on a real cluster: foreign images, and images left after a crash."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread

from bootvol.errors import BackendFailed, ConfigurationError
from bootvol.interfaces import ISparse, PluginContext
from bootvol.testing.backends import SIZE, noise, read, write
from bootvol.threads import Threads
from bootvol_plugins.rbd import PLUGIN, handles, images, objects
from bootvol_plugins.rbd.backend import RbdBackend
from bootvol_plugins.rbd.bindings import load
from bootvol_plugins.rbd.cluster import Pool
from bootvol_plugins.rbd.handles import OpenImage
from bootvol_plugins.rbd.options import RbdOptions
from tests.ceph import POOL, Cluster
from tests.daemons import Running, pause, reactor
from tests.waiting import LIMIT

MIB = 1024 * 1024
NAME = "volume-1"
OTHER = "volume-2"
#: The plugin's names for work in progress.
NOTE = "bootvol.making."
SNAPSHOT = "bootvol-"


@pytest.fixture
def namespace(ceph_cluster: Cluster) -> str:
    """A namespace for one test."""
    return ceph_cluster.add_namespace()


def made(threads: Threads, options: dict[str, Any]) -> RbdBackend:
    """Return a function that makes a backend as the daemon does."""
    found = RbdOptions.model_validate(options, strict=False)
    backend = PLUGIN.factory(found, PluginContext(reactor, threads, "ceph"))
    assert isinstance(backend, RbdBackend)
    return backend


@pytest_twisted.async_yield_fixture
async def backend(
    threads: Threads, ceph_cluster: Cluster, namespace: str
) -> AsyncIterator[RbdBackend]:
    """A backend in the namespace."""
    backend = made(threads, ceph_cluster.options(namespace))
    yield backend
    await backend.close()


async def is_refused(backend: RbdBackend, volume: str) -> None:
    """Check that no operation accepts an image as a volume."""
    for refused in (
        backend.allocate(volume, SIZE),
        backend.open_writer(volume),
        backend.open_reader(volume),
        backend.connection(volume),
        backend.clone(volume, "volume-9", SIZE),
        backend.clone(OTHER, volume, SIZE),
    ):
        with pytest.raises(BackendFailed):
            await refused
    await backend.delete(volume)


@ensureDeferred
async def test_zeros_are_told_in_whole_objects(
    backend: RbdBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clones also begin with the data of their parents; the answers come in several parts."""
    monkeypatch.setattr(handles, "_WINDOW", 128 * MIB)
    objects, size = 4 * MIB, 1024 * MIB
    data = {0, 5, 6, 512 * MIB // objects, size // objects - 1}
    await backend.allocate(NAME, size)
    for number in data:
        await write(backend, NAME, number * objects + 4096, noise(4096))
    await backend.clone(NAME, OTHER, size)
    await write(backend, OTHER, 50 * objects, noise(4096))
    for name, expected in ((NAME, data), (OTHER, {*data, 50})):
        reader = await backend.open_reader(name)
        assert ISparse.providedBy(reader)
        found, at, asked = set[int](), 0, 0
        while at < size:
            asked += 1
            for extent in await ISparse(reader).extents(at, size - at):
                if not extent.zero:
                    found |= {at // objects, (at + extent.length - 1) // objects}
                at += extent.length
        await reader.close()
        assert found == expected
        assert asked == 8


@ensureDeferred
async def test_a_volume_is_read_back_by_its_objects(
    ceph_cluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    """A whole import, with read-back, reads none of the holes."""
    table = ceph_cluster.table(f'namespace = "{namespace}"\ncache_gib = 0')
    running = Running(tmp_path, '[imports]\nverify = "read-back"\n', first=table)
    try:
        with (running.images / "disk").open("xb") as image:
            for offset in (0, 700 * MIB, 1000 * MIB):
                image.seek(offset)
                image.write(noise(MIB))
        reads: list[int] = []
        reading = OpenImage.read_into

        async def counted(self: OpenImage, offset: int, target: memoryview) -> None:
            reads.append(len(target))
            await reading(self, offset, target)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(OpenImage, "read_into", counted)
            number = await running.create("disk")
            assert await running.until(number, "available", "error") == "available"
        assert 3 * MIB <= sum(reads) <= 32 * MIB
    finally:
        await running.stop()


@ensureDeferred
async def test_images_of_others_are_left_alone(
    backend: RbdBackend, ceph_cluster: Cluster, namespace: str
) -> None:
    await backend.allocate(OTHER, SIZE)
    ceph_cluster.create(NAME, SIZE, namespace)
    with ceph_cluster.image(NAME, namespace) as image:
        image.write(noise(SIZE), 0)
    await is_refused(backend, NAME)
    # Nor is a copy of a volume made by somebody else ours, although the copy has the metadata.
    with ceph_cluster.pool(namespace) as pool, ceph_cluster.image(OTHER, namespace) as image:
        image.copy(pool, "volume-3")
    await is_refused(backend, "volume-3")
    assert ceph_cluster.images(namespace) == [NAME, OTHER, "volume-3"]
    with ceph_cluster.image(NAME, namespace) as image:
        assert image.read(0, SIZE) == noise(SIZE)


@ensureDeferred
async def test_what_a_crash_left_of_a_new_volume(
    backend: RbdBackend, ceph_cluster: Cluster, namespace: str
) -> None:
    empty = ceph_cluster.left(namespace)
    rbd = load().rbd.RBD()
    for again in (backend.allocate, lambda name, _: backend.delete(name)):
        for create in (False, True):
            with ceph_cluster.pool(namespace) as pool:
                rbd.pool_metadata_set(pool, NOTE + NAME, "")
            if not create:
                await again(NAME, SIZE)
            else:
                # Any size is possible: the earlier request may have had another size.
                ceph_cluster.create(NAME, 2 * SIZE, namespace)
                with pytest.raises(BackendFailed):
                    await backend.open_reader(NAME)
                # A killed client has the image open for some seconds.
                with ceph_cluster.image(NAME, namespace):
                    under_way = Deferred.fromCoroutine(again(NAME, SIZE))
                    await pause(0.2)
                await under_way
            if ceph_cluster.images(namespace):
                await write(backend, NAME, 0, noise(SIZE))
            await backend.delete(NAME)
            assert ceph_cluster.left(namespace) == empty


@ensureDeferred
async def test_what_a_crash_left_of_a_clone(
    backend: RbdBackend, ceph_cluster: Cluster, namespace: str
) -> None:
    empty = ceph_cluster.left(namespace)
    rbd = load().rbd
    for cloned in (False, True):
        for keep_source in (False, True):
            await backend.allocate(NAME, SIZE)
            await write(backend, NAME, 0, noise(SIZE))
            with ceph_cluster.pool(namespace) as pool:
                rbd.RBD().pool_metadata_set(pool, NOTE + OTHER, NAME)
                with ceph_cluster.image(NAME, namespace) as image:
                    image.create_snap(SNAPSHOT + OTHER)
                if cloned:
                    rbd.RBD().clone(pool, NAME, SNAPSHOT + OTHER, pool, OTHER, features=61)
            with pytest.raises(BackendFailed):
                await backend.open_reader(OTHER)
            if not keep_source:
                await backend.delete(NAME)
            await backend.delete(OTHER)
            if keep_source:
                with ceph_cluster.image(NAME, namespace) as image:
                    assert list(image.list_snaps()) == []
                await backend.clone(NAME, OTHER, SIZE)
                assert await read(backend, OTHER, 0, SIZE) == noise(SIZE)
                await backend.delete(OTHER)
                await backend.delete(NAME)
            assert ceph_cluster.left(namespace) == empty


@pytest.mark.parametrize("again", [True, False])
@ensureDeferred
async def test_what_was_left_of_a_deleted_parent(
    backend: RbdBackend,
    ceph_cluster: Cluster,
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
    again: bool,
) -> None:
    """The last clone is gone, but its parent is left: a client has the parent open.

    The client stands for a killed daemon, which counts as alive for a while. Its successor removes
    the parent after that while, or the same daemon an hour later.

    Break: `plugins/bootvol_plugins/rbd/backend.py`: `await sleep(self._reactor,
    self._options.patience)` -> `pass`
    """
    clock = Clock()
    clock.advance(reactor.seconds())
    monkeypatch.setattr(backend, "_reactor", clock)
    rbd = load().rbd
    # Foreign images in the trash stay there.
    ceph_cluster.create("foreign", SIZE, namespace)
    with ceph_cluster.pool(namespace) as pool:
        rbd.RBD().trash_move(pool, "foreign")
    before = ceph_cluster.left(namespace)
    await backend.allocate(NAME, SIZE)
    with ceph_cluster.image(NAME, namespace) as image:
        number = image.id()
    await backend.clone(NAME, OTHER, SIZE)
    await backend.delete(NAME)
    if again:
        await _swept(backend, clock)
    # An image in use is not removed.
    with ceph_cluster.pool(namespace) as pool, rbd.Image(pool, image_id=number):
        await backend.delete(OTHER)
    assert f"rbd_header.{number}" in ceph_cluster.left(namespace)
    if again:
        await _swept(backend, clock)
        assert f"rbd_header.{number}" in ceph_cluster.left(namespace)
        clock.advance(3600)
        await backend.delete(OTHER)
    await _swept(backend, clock)
    assert ceph_cluster.left(namespace) == before


async def _swept(backend: RbdBackend, clock: Clock) -> None:
    """Let the time pass until a sweep, and wait for the sweep's end."""
    clock.advance(45)
    assert backend._sweeping is not None
    await backend._sweeping.wait()


@ensureDeferred
async def test_a_writer_of_old_is_shut_out(
    threads: Threads, backend: RbdBackend, ceph_cluster: Cluster, namespace: str
) -> None:
    """The writer stands for a daemon that has lost its claim without knowing."""
    await backend.allocate(NAME, SIZE)
    old = await backend.open_writer(NAME)
    await old.write(0, memoryview(bytearray(noise(SIZE))))
    other = made(threads, ceph_cluster.options(namespace))
    try:
        new = await other.open_writer(NAME)
        await new.write(0, memoryview(bytearray(SIZE)))
        with pytest.raises(BackendFailed, match="the cluster has blocked this client"):
            await old.write(0, memoryview(bytearray(noise(SIZE))))
        await new.close()
    finally:
        await other.close()
    await old.close()
    # The backend connects anew.
    assert await read(backend, NAME, 0, SIZE) == bytes(SIZE)


@pytest.mark.parametrize("quick", [True, False])
@ensureDeferred
async def test_missing_objects_are_not_told_one_by_one(
    backend: RbdBackend,
    ceph_cluster: Cluster,
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
    quick: bool,
) -> None:
    """A removal reports its progress only if the image has much data."""
    size = 512 * MIB
    await backend.allocate(NAME, size)
    await write(backend, NAME, 0, noise(SIZE))
    if not quick:
        monkeypatch.setattr(objects, "_QUICK", SIZE - 1)
    beats: list[object] = []

    def beat(*progress: object) -> int:
        # The count of the data shows its progress, too.
        beats.extend(progress)
        return 0

    def removed(volume: str) -> None:
        with ceph_cluster.pool(namespace) as ioctx:
            pool = Pool(load(), None, ioctx, POOL, "", "")  # type: ignore[arg-type]
            images.Images(pool, "ceph").delete(volume, beat)

    await deferToThread(removed, NAME)
    assert bool(beats) != quick
    assert await deferToThread(ceph_cluster.left, namespace) == []


@ensureDeferred
async def test_two_clients_delete_the_same_volumes(
    threads: Threads, backend: RbdBackend, ceph_cluster: Cluster, namespace: str
) -> None:
    """One client stands for a daemon that has lost its claims without knowing.

    Break: yield in `alone` without the lock. Ceph's library then leaves objects, or hangs.
    """
    other = made(threads, ceph_cluster.options(namespace))
    names = [f"volume-{number}" for number in range(30)]
    try:
        for name in names:
            await backend.allocate(name, SIZE)
        deletions = [each.delete(name) for name in names for each in (backend, other)]
        ended = await DeferredList(
            [Deferred.fromCoroutine(each) for each in deletions], consumeErrors=True
        )
    finally:
        await other.close()
    assert [result for done, result in ended if not done] == []
    assert await deferToThread(ceph_cluster.left, namespace) == []


@ensureDeferred
async def test_a_volume_of_another_size_is_not_written_to(
    backend: RbdBackend, ceph_cluster: Cluster, namespace: str
) -> None:
    await backend.allocate(NAME, SIZE)
    with ceph_cluster.image(NAME, namespace) as image:
        image.resize(SIZE // 2)
    with pytest.raises(BackendFailed, match="is not what was allocated"):
        await backend.open_writer(NAME)
    await backend.delete(NAME)


@ensureDeferred
async def test_monitors_stand_for_a_configuration(
    threads: Threads, ceph_cluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    options = ceph_cluster.options(namespace)
    del options["conf"]
    backend = made(threads, {**options, "monitors": [ceph_cluster.monitor]})
    try:
        await backend.allocate(NAME, SIZE)
        await write(backend, NAME, 0, noise(SIZE))
        found = await backend.connection(NAME)
    finally:
        await backend.close()
    copy = tmp_path / "copy"
    command = ["qemu-img", "convert", "-f", "raw", "-O", "raw", found.address, str(copy)]
    await deferToThread(subprocess.run, command, check=True, timeout=LIMIT)
    assert copy.read_bytes() == noise(SIZE)


@ensureDeferred
async def test_rights_to_a_namespace_are_enough(
    threads: Threads, ceph_cluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    rights = ["mon", "profile rbd", "osd", f"profile rbd pool={POOL} namespace={namespace}"]
    (made_user,) = ceph_cluster.command("auth get-or-create", entity="client.nan", caps=rights)
    keyring = tmp_path / "keyring"
    keyring.write_text(f"[client.nan]\nkey = {made_user['key']}\n")
    options = {**ceph_cluster.options(namespace), "user": "nan", "keyring": str(keyring)}
    backend = made(threads, options)
    try:
        await backend.allocate(NAME, SIZE)
        await write(backend, NAME, 0, noise(SIZE))
        await backend.clone(NAME, OTHER, SIZE)
        await backend.delete(NAME)
        assert await read(backend, OTHER, 0, SIZE) == noise(SIZE)
        await backend.delete(OTHER)
    finally:
        await backend.close()
    assert ceph_cluster.left(namespace) == []
    elsewhere = made(threads, {**options, "namespace": ceph_cluster.add_namespace()})
    try:
        with pytest.raises(BackendFailed, match="Operation not permitted"):
            await elsewhere.allocate(NAME, SIZE)
    finally:
        await elsewhere.close()


@ensureDeferred
async def test_a_user_without_rights(
    threads: Threads, ceph_cluster: Cluster, tmp_path: Path
) -> None:
    keyring = tmp_path / "keyring"
    keyring.write_text(ceph_cluster.keyring.read_text().replace("client.bootvol", "client.eve"))
    options = {**ceph_cluster.options(), "user": "eve", "keyring": str(keyring)}
    backend = made(threads, options)
    with pytest.raises(BackendFailed, match="Connecting to the cluster of backend ceph failed"):
        await backend.allocate(NAME, SIZE)
    no_pool = made(threads, {**ceph_cluster.options(), "pool": f"no-{POOL}"})
    with pytest.raises(BackendFailed, match="No such file or directory"):
        await no_pool.allocate(NAME, SIZE)


def test_files_that_are_not_there(threads: Threads, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        made(threads, {"pool": POOL, "conf": str(tmp_path / "ceph.conf")})
