"""Compressed images: decompressed as by the tools, and only as far as needed."""

from __future__ import annotations

import hashlib
import lzma
import threading
from collections.abc import Callable

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import CancelledError, Deferred
from zope.interface import implementer

from bootvol.clocks import sleep
from bootvol.errors import (
    DigestMismatch,
    ImageBomb,
    ImageCorrupt,
    ImageTooLarge,
    ImportFailed,
    SourceFailed,
)
from bootvol.imaging.compression import compression_of
from bootvol.imaging.decompress import DecompressingStream, unpacked
from bootvol.imaging.digest import Digester
from bootvol.imaging.inspect import Inspection
from bootvol.interfaces import IImageStream
from bootvol.model import Digest
from bootvol.testing.backends import noise
from bootvol.testing.sources import read_all
from bootvol.threads import Threads
from tests.images import PACKERS
from tests.unit.test_imaging import CLOCK, Stream
from tests.waiting import LIMIT

CONTENT = noise(700_000) + bytes(2_000_000) + noise(300_001, 1)
MOST = 16 * 1024 * 1024


async def contents(source: Stream, threads: Threads, stated: Digest | None = None) -> bytes:
    """Return the decompressed content of a stream."""
    stream, _ = await unpacked(source, stated, MOST, threads)
    try:
        return await read_all(stream, 65536)
    finally:
        await stream.close()


packers = pytest.mark.parametrize("pack", PACKERS.values(), ids=PACKERS)


@packers
@pytest.mark.parametrize("size", [4096, 65536, 4 * 1024 * 1024])
@ensureDeferred
async def test_unpacks(threads: Threads, pack: Callable[[bytes], bytes], size: int) -> None:
    packed = pack(CONTENT)
    stated = Digest("sha512", hashlib.sha512(packed).hexdigest())
    stream, left = await unpacked(Stream(packed, len(packed)), stated, MOST, threads)
    assert isinstance(stream, DecompressingStream)
    assert left is None, "the digest is of what came"
    assert (stream.size, stream.offset, stream.validator) == (None, 0, None)
    assert await read_all(stream, size) == CONTENT


@packers
@ensureDeferred
async def test_several_members_and_padding(
    threads: Threads, pack: Callable[[bytes], bytes]
) -> None:
    half = len(CONTENT) // 2
    packed = pack(CONTENT[:half]) + pack(CONTENT[half:]) + bytes(1024)
    stream, _ = await unpacked(Stream(packed), None, MOST, threads)
    assert await read_all(stream, 65536) == CONTENT


@packers
@pytest.mark.parametrize("edge", [1, 128 * 1024, 1024 * 1024])
@pytest.mark.parametrize("beyond", [-1, 0, 1])
@ensureDeferred
async def test_members_that_begin_where_pieces_end(
    threads: Threads, pack: Callable[[bytes], bytes], edge: int, beyond: int
) -> None:
    packed = b""
    step = 4 if pack is PACKERS["xz"] else 1
    for start in range(0, len(CONTENT), 500_000):
        packed += pack(CONTENT[start : start + 500_000])
        packed += bytes((-len(packed) + beyond * step) % max(edge, step))
    stream, _ = await unpacked(Stream(packed), None, MOST, threads)
    assert await read_all(stream, 300_000) == CONTENT


@pytest.mark.parametrize(
    "start", [b"\x1f\x8b\xd8\x00", b"\x1f\x8b\x08\x40", b"BZh\x8e\xd0", b"BZh9"]
)
@ensureDeferred
async def test_a_disk_that_begins_like_a_compressed_image(threads: Threads, start: bytes) -> None:
    """The first bytes of some formats are only two or three: a boot sector may begin with them."""
    disk = start + noise(510 - len(start)) + b"\x55\xaa" + noise(100_000)
    assert await contents(Stream(disk), threads) == disk
    Inspection(None).begin(memoryview(disk))


@packers
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.999])
@ensureDeferred
async def test_truncated(threads: Threads, pack: Callable[[bytes], bytes], kept: float) -> None:
    packed = pack(CONTENT)
    with pytest.raises(ImageCorrupt):
        await contents(Stream(packed[: int(len(packed) * kept)]), threads)


@packers
@ensureDeferred
async def test_corrupt(threads: Threads, pack: Callable[[bytes], bytes]) -> None:
    packed = bytearray(pack(CONTENT))
    packed[len(packed) // 2 : len(packed) // 2 + 64] = noise(64, 5)
    with pytest.raises(ImageCorrupt):
        await contents(Stream(bytes(packed)), threads)


@packers
@ensureDeferred
async def test_the_stated_digest_is_of_what_comes(
    threads: Threads, pack: Callable[[bytes], bytes]
) -> None:
    stated = Digest("sha256", hashlib.sha256(CONTENT).hexdigest())
    with pytest.raises(DigestMismatch):
        await contents(Stream(pack(CONTENT)), threads, stated)


@packers
@ensureDeferred
async def test_a_bomb_is_unpacked_no_further_than_is_wanted(
    threads: Threads, pack: Callable[[bytes], bytes]
) -> None:
    """A bomb is read and decompressed only as far as the reader asks.

    Break: `src/bootvol/imaging/members.py`: `most = min(len(target) - done, _PIECE_OUT)` ->
    `most = 1 << 30`.
    """
    bomb = pack(bytes(256 * 1024 * 1024))
    source = Stream(bomb)
    stream, _ = await unpacked(source, None, MOST, threads)
    buffer = memoryview(bytearray(65536))
    assert await stream.read_into(buffer) == 65536
    assert source.read <= 512 * 1024
    await stream.close()


@packers
@ensureDeferred
async def test_many_small_members(threads: Threads, pack: Callable[[bytes], bytes]) -> None:
    content = noise(2000 * 1024)
    packed = b"".join(pack(content[at : at + 1024]) for at in range(0, len(content), 1024))
    stream, _ = await unpacked(Stream(packed), None, MOST, threads)
    assert await read_all(stream, 65536) == content


@packers
@ensureDeferred
async def test_members_that_hold_nothing(threads: Threads, pack: Callable[[bytes], bytes]) -> None:
    """Empty members cost time, and the volume's size does not bound their number.

    Break: `src/bootvol/imaging/members.py`: `if self._credit < 0:` -> `if not kind:`.
    """
    with pytest.raises(ImageBomb):
        await contents(Stream(pack(b"x") + pack(b"") * 1001), threads)


@packers
@ensureDeferred
async def test_padding_for_ever(threads: Threads, pack: Callable[[bytes], bytes]) -> None:
    """Padding behind an image is read only up to the volume's size.

    Break: `src/bootvol/imaging/decoding.py`: `if self.taken > self._most:` -> `if not
    self.taken:`.
    """
    source = Stream(pack(CONTENT) + bytes(2 * MOST))
    with pytest.raises(ImageTooLarge):
        await contents(source, threads)
    assert source.read <= MOST + 2 * 1024 * 1024


@ensureDeferred
async def test_memory_that_a_stream_may_not_ask_for(threads: Threads) -> None:
    """A stream is refused if decompressing it takes more memory than allowed.

    Break: `src/bootvol/imaging/compression.py`: `memlimit=_MEMORY)` -> `memlimit=None)`.
    """
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 512 * 1024 * 1024}]
    packed = lzma.compress(noise(1000), filters=filters)
    with pytest.raises(ImageBomb):
        await contents(Stream(packed), threads)


@pytest.mark.parametrize("content", [b"", b"x", noise(5), CONTENT])
@ensureDeferred
async def test_what_is_not_compressed_passes(threads: Threads, content: bytes) -> None:
    stated = Digest("md5", "00")
    stream, left = await unpacked(Stream(content, len(content)), stated, MOST, threads)
    assert left is stated
    assert (stream.size, stream.validator) == (len(content), "one")
    assert await read_all(stream, 4096) == content


@implementer(IImageStream)
class Slow:
    """A stream that answers in a later turn of the reactor, and then breaks off."""

    size: int | None = None
    offset = 0
    validator: str | None = None

    def __init__(self, content: bytes, stop: int, reason: ImportFailed | None) -> None:
        self._stream = Stream(content[:stop], end=reason)

    async def read_into(self, target: memoryview) -> int:
        """See IImageStream."""
        await sleep(CLOCK, 0.01)
        return await self._stream.read_into(target)

    async def close(self) -> None:
        """See IImageStream."""


@packers
@pytest.mark.parametrize("kept", [0.2, 0.7])
@ensureDeferred
async def test_a_slow_source_that_breaks_off(
    threads: Threads, pack: Callable[[bytes], bytes], kept: float
) -> None:
    """The break is reported, even by a close during the read."""
    packed = pack(noise(2_500_000))
    stream, _ = await unpacked(
        Slow(packed, int(len(packed) * kept), SourceFailed("It broke off.")), None, MOST, threads
    )
    try:
        with pytest.raises(SourceFailed, match="It broke off"):
            await read_all(stream, 65536)
    finally:
        await stream.close()


@packers
@ensureDeferred
async def test_closing_while_a_slow_source_is_read(
    threads: Threads, pack: Callable[[bytes], bytes]
) -> None:
    packed = pack(noise(2_500_000))
    stream, _ = await unpacked(Slow(packed, len(packed), None), None, MOST, threads)
    reading = Deferred.fromCoroutine(read_all(stream, 65536))
    reading.cancel()
    with pytest.raises(CancelledError):
        await reading
    await stream.close()
    await stream.close()


@pytest.mark.parametrize("stops", [1, 3, 7])
@packers
@ensureDeferred
async def test_a_stream_that_breaks_off_goes_on(
    threads: Threads, pack: Callable[[bytes], bytes], stops: int
) -> None:
    """Only bytes on their way are sent twice, and the digest covers all received bytes."""
    content = noise(3_000_000) + bytes(3_000_000) + noise(3_000_000, 1)
    packed = pack(content[:1_000_000]) + pack(content[1_000_000:])
    stated = Digest("sha512", hashlib.sha512(packed).hexdigest())
    ends = [len(packed) * (n + 1) // (stops + 1) for n in range(stops)]
    first = Stream(packed[: ends[0]], end=SourceFailed("It broke off."))
    stream, _ = await unpacked(first, stated, MOST, threads)
    assert isinstance(stream, DecompressingStream)
    got = b""
    buffer = memoryview(bytearray(300_000))
    for end in [*ends[1:], len(packed)]:
        try:
            while True:
                length = await stream.read_into(buffer)
                got += buffer[:length]
        except SourceFailed:
            pass
        await stream.close()
        rest = Stream(
            packed[stream.taken : end],
            end=None if end == len(packed) else SourceFailed("It broke off."),
        )
        stream.go_on(rest)
    got += await read_all(stream, 300_000)
    assert got == content


def test_each_format_is_told_by_each_of_its_beginnings() -> None:
    beginnings = [(name, pack(b"x")) for name, pack in PACKERS.items()]
    beginnings += [("zstd", bytes([0x50 + number]) + b"\x2a\x4d\x18") for number in range(16)]
    for name, beginning in beginnings:
        found = compression_of(beginning)
        assert found is not None
        assert found.name == name
    assert compression_of(b"") is None


@ensureDeferred
async def test_bytes_are_hashed_beside_the_decoding(
    threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the next read of the source waits for the digest, and a close."""
    packed = PACKERS["zstd"](noise(5_000_000))
    stated = Digest("sha256", hashlib.sha256(packed).hexdigest())
    free = threading.Event()
    update = Digester.update

    def late(digester: Digester, chunk: memoryview) -> None:
        assert free.wait(LIMIT)
        update(digester, chunk)

    monkeypatch.setattr(Digester, "update", late)
    stream, _ = await unpacked(Stream(packed), stated, MOST, threads)
    buffer = memoryview(bytearray(500_000))
    assert await stream.read_into(buffer) == len(buffer)
    assert bytes(buffer) == noise(5_000_000)[: len(buffer)]
    closed = Deferred.fromCoroutine(stream.close())
    assert not closed.called, "the memory is still being hashed"
    free.set()
    await closed
