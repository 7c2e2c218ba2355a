"""Clones of images in the volumes' own cluster, at locations stated by a source."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread
from zope.interface import implementer

from bootvol.interfaces import IImageStream, ILocatedStream
from bootvol.model import GIB, Image
from bootvol.testing.backends import noise
from bootvol_plugins.directory_source import DirectorySource
from tests.ceph import IMAGES, Cluster
from tests.daemons import Running
from tests.images import DISK, MIB, qcow2

#: The last block is incomplete.
CONTENT = noise(9 * MIB + 77)
OTHER = noise(9 * MIB + 77, 1)


@implementer(IImageStream, ILocatedStream)
class Located:
    """A stream with a stated location of the image.

    :ivar taken: number of bytes read from all streams.
    """

    taken = 0

    def __init__(self, stream: Any, location: str | None) -> None:
        self.size = stream.size
        self.offset = stream.offset
        self.validator = stream.validator
        self.location = location
        self._stream = stream

    async def read_into(self, target: memoryview) -> int:
        count: int = await self._stream.read_into(target)
        Located.taken += count
        return count

    async def close(self) -> None:
        await self._stream.close()


class Glance:
    """A set of images: their bytes in a folder, and their locations.

    :ivar location: stated for all images.
    """

    def __init__(self, daemon: Running, cluster: Cluster) -> None:
        self.daemon = daemon
        self.cluster = cluster
        self.location: str | None = None
        Located.taken = 0

    def put(self, content: bytes, at_location: bytes, **stated: str) -> None:
        """Make an image, and an object at the stated location."""
        (self.daemon.images / "disk.raw").write_bytes(content)
        lines = "".join(f'{key} = "{value}"\n' for key, value in stated.items())
        index = f'[[images]]\nid = "disk"\nfile = "disk.raw"\n{lines}'
        (self.daemon.images / "index.toml").write_text(index)
        self.location = self.cluster.put_image(at_location)

    async def taken(self, content: bytes = CONTENT) -> bool:
        """Make a volume, check its content, and return whether the volume is a clone."""
        number = await self.daemon.create("disk")
        assert await self.daemon.until(number, "available", "error") == "available", (
            await self.daemon.progress(number)
        )

        def look() -> bool:
            (name,) = self.cluster.images()
            with self.cluster.image(name) as image:
                assert image.size() == GIB
                assert image.read(0, len(content)) == content
                assert not any(image.read(len(content), MIB))
                image.write(bytes(MIB), 0)
                try:
                    return bool(image.parent_info()[0] == IMAGES)
                except self.cluster.bindings.rbd.ImageNotFound:
                    return False

        cloned = await deferToThread(look)
        assert (await self.daemon.call("DELETE", f"os-volumes/{number}")).status == 202
        assert await self.daemon.until(number, "gone", "error") == "gone"
        return cloned


@pytest_twisted.async_yield_fixture
async def glance(
    tmp_path: Path, ceph_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Glance]:
    """A daemon with a source that states locations, and with an empty image cache."""
    daemon = Running(tmp_path, first=ceph_cluster.table("cache_gib = 0"))
    glance = Glance(daemon, ceph_cluster)
    bare = DirectorySource.open

    async def opened(self: DirectorySource, image: Image, *at: Any) -> IImageStream:
        return Located(await bare(self, image, *at), glance.location)

    monkeypatch.setattr(DirectorySource, "open", opened)
    yield glance
    await daemon.stop()


@pytest.mark.parametrize("stated", [True, False])
@ensureDeferred
async def test_an_image_that_lies_there_is_not_downloaded(glance: Glance, stated: bool) -> None:
    digest = {"sha512": hashlib.sha512(CONTENT).hexdigest()} if stated else {}
    glance.put(CONTENT, CONTENT, format="raw", **digest)
    assert await glance.taken()
    assert Located.taken == 0

    def unchanged() -> bool:
        assert glance.location is not None
        with glance.cluster.snapshot(glance.location) as image:
            return bool(image.read(0, len(CONTENT)) == CONTENT)

    assert await deferToThread(unchanged)
    assert await deferToThread(glance.cluster.left) == []


@ensureDeferred
async def test_what_lies_there_is_held_against_the_digest(glance: Glance) -> None:
    glance.put(CONTENT, OTHER, sha512=hashlib.sha512(CONTENT).hexdigest())
    number = await glance.daemon.create("disk")
    assert await glance.daemon.until(number, "available", "error") == "error"
    error = (await glance.daemon.progress(number))["error"]
    assert error["code"] == "digest-mismatch"
    assert await deferToThread(glance.cluster.left) == []


@ensureDeferred
async def test_what_cannot_be_cloned_is_downloaded(glance: Glance) -> None:
    # The object has another size than the image.
    glance.put(CONTENT, OTHER[:MIB])
    assert not await glance.taken()
    glance.put(CONTENT, OTHER)
    assert glance.location is not None
    place, name, snapshot = glance.location.rsplit("/", 2)
    other = "00000000-0000-0000-0000-000000000000"
    for location in (
        None,
        "file:///etc/passwd",
        f"rbd://{other}/{IMAGES}/{name}/{snapshot}",
        f"{place}/{other}/{snapshot}",
        f"{place}/{name}/{other}",
        f"{place}/{name}",
    ):
        glance.location = location
        assert not await glance.taken()
    # A pool that the operator did not name, with volumes of other tenants.
    glance.location = f"{place.removesuffix(IMAGES)}volumes/{name}/{snapshot}"
    assert not await glance.taken()


@ensureDeferred
async def test_a_container_that_lies_there(glance: Glance, tmp_path: Path) -> None:
    """Nobody has stated the format: the clone is no disk, and has to be unpacked."""
    content = await deferToThread(qcow2, tmp_path)
    glance.put(content, content)
    assert not await glance.taken(DISK)
