"""The importer asks the ways to spare a copy in order, and copies only if none fills the volume."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import pytest
from pytest_twisted import ensureDeferred

from bootvol.backends import Backends
from bootvol.errors import FormatMismatch, NotADisk
from bootvol.imaging.bandwidth import Bandwidth
from bootvol.imaging.buffers import Memory
from bootvol.interfaces import IImageStream
from bootvol.lifecycle import Status
from bootvol.model import GIB, Digest, Image, Import, Phase, Volume
from bootvol.testing.backends import noise, read, write
from bootvol.testing.memory import MemoryBackend
from bootvol.threads import Threads
from bootvol.worker.copier import Copier, ImportLimits
from bootvol.worker.deltas import Deltas
from bootvol.worker.importer import Importer
from bootvol.worker.progress import Progress
from bootvol.worker.shortcuts import Filling, NoShortcut
from tests.daemons import reactor
from tests.unit.test_imaging import Stream
from tests.unit.test_worker import NoImageCache

SIZE = 65536
CONTENT = noise(SIZE)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
VOLUME = Volume(1, "v", "t", "u", 1, Status.DOWNLOADING, NOW, "nova", "b", "i")
IMAGE = Image("i", "s", "n", "raw")
PAGE = b"<!DOCTYPE html><html></html>".ljust(SIZE, b"\n")


class Source:
    """A source with one image.

    :ivar opened: number of opened streams.
    """

    name = "s"

    def __init__(self) -> None:
        self.opened = 0

    async def open(
        self, image: Image, offset: int = 0, validator: str | None = None
    ) -> IImageStream:
        """See :meth:`bootvol.interfaces.IImageSource.open`."""
        self.opened += 1
        return Stream(CONTENT, SIZE)


class Way(NoShortcut):
    """A shortcut that notes each question.

    :param fills: the question after which the shortcut fills the volume: ``before`` or ``stream``.
    :param content: the bytes that the shortcut writes.
    """

    def __init__(
        self,
        asked: list[tuple[str, str]],
        name: str,
        fills: str | None = None,
        content: bytes = CONTENT,
    ) -> None:
        self._asked = asked
        self._name = name
        self._fills = fills
        self._content = content

    async def before_source(self, filling: Filling) -> bool:
        """See :meth:`bootvol.worker.shortcuts.Shortcut.before_source`."""
        return await self._fill(filling, "before")

    async def from_stream(self, filling: Filling, stream: IImageStream) -> int | None:
        """See :meth:`bootvol.worker.shortcuts.Shortcut.from_stream`."""
        return SIZE if await self._fill(filling, "stream") else None

    async def _fill(self, filling: Filling, question: str) -> bool:
        self._asked.append((self._name, question))
        if question != self._fills:
            return False
        await filling.begin()
        await filling.target.renew()
        await write(filling.target.backend, filling.target.name, 0, self._content)
        return True


@attrs.frozen
class Bench:
    """An importer with its surroundings.

    :ivar asked: the questions to shortcuts, in order.
    """

    backend: MemoryBackend
    source: Source
    copier: Copier
    asked: list[tuple[str, str]] = attrs.Factory(list)
    image_cache: NoImageCache = attrs.Factory(NoImageCache)

    async def run(self, ways: Sequence[Way], image: Image = IMAGE) -> Progress:
        """Run an import; return its progress."""
        cache: Any = self.image_cache
        no: Any = None
        source: Any = self.source
        importer = Importer(
            lambda _name: source,
            cache,
            Deltas(no, Backends([self.backend], reactor), self.copier.threads),
            ways,
            no,
            Bandwidth(None, {}, reactor),
            self.copier,
        )
        progress = Progress(0.0)
        await importer.run(VOLUME, Import(1, image), progress, Claim())  # type: ignore[arg-type]
        return progress


class Claim:
    """A claim that always holds."""

    async def heartbeat(self) -> None:
        """See :meth:`bootvol.worker.claims.Claim.heartbeat`."""


@pytest.fixture
def bench(threads: Threads, tmp_path: Path) -> Bench:
    """An importer onto an empty backend."""
    copier = Copier(ImportLimits(SIZE, 0, tmp_path), Memory(2, SIZE), threads, reactor)
    return Bench(MemoryBackend("b", reactor), Source(), copier)


@ensureDeferred
async def test_the_source_is_not_asked_if_a_shortcut_fills_the_volume_before(bench: Bench) -> None:
    asked = bench.asked
    await bench.run([Way(asked, "one"), Way(asked, "two", "before"), Way(asked, "three")])
    assert asked == [("one", "before"), ("two", "before")]
    assert bench.source.opened == 0
    assert await read(bench.backend, "v", 0, SIZE) == CONTENT


@ensureDeferred
async def test_the_first_shortcut_that_fills_the_volume_is_the_last_one_asked(
    bench: Bench,
) -> None:
    asked, other = bench.asked, noise(SIZE, 7)
    ways = [Way(asked, "one"), Way(asked, "two", "stream", other), Way(asked, "three", "stream")]
    progress = await bench.run(ways)
    assert asked[3:] == [("one", "stream"), ("two", "stream")]
    assert await read(bench.backend, "v", 0, SIZE) == other, "nothing is copied over it"
    assert progress.phase is Phase.VERIFYING
    assert progress.bytes_done == SIZE


@ensureDeferred
async def test_the_image_is_copied_if_no_shortcut_helps(bench: Bench) -> None:
    asked = bench.asked
    await bench.run([Way(asked, "one"), Way(asked, "two")])
    assert asked == [("one", "before"), ("two", "before"), ("one", "stream"), ("two", "stream")]
    assert await read(bench.backend, "v", 0, SIZE) == CONTENT
    assert await read(bench.backend, "v", GIB - SIZE, SIZE) == bytes(SIZE)


@ensureDeferred
async def test_what_a_shortcut_brings_is_examined(bench: Bench) -> None:
    with pytest.raises(NotADisk):
        await bench.run([Way(bench.asked, "one", "stream", PAGE)])


@ensureDeferred
async def test_no_shortcut_is_asked_for_a_container(bench: Bench) -> None:
    """The bytes of a container are not the bytes of its disk."""
    image = attrs.evolve(IMAGE, format="qcow2", digest=Digest("sha256", "0" * 64))
    with pytest.raises(FormatMismatch):
        await bench.run([Way(bench.asked, "one", "stream")], image)
    assert ("one", "stream") not in bench.asked
