"""Compressed images decoded by several threads: as by one, and as by the tools."""

from __future__ import annotations

import gc
import gzip
import hashlib
import lzma
import subprocess
import threading
import zlib
from collections.abc import Callable
from contextlib import suppress

import pytest
from backports import zstd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pytest_twisted import ensureDeferred
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from bootvol.errors import ImageCorrupt, ImageTooLarge, ImportFailed, SourceFailed
from bootvol.imaging import decoding, parallel, sections, xz_blocks
from bootvol.imaging.buffers import Memory
from bootvol.imaging.compression import FORMATS
from bootvol.imaging.decompress import DecompressingStream, unpacked
from bootvol.imaging.members import Members
from bootvol.imaging.parts import Part, Spare
from bootvol.imaging.xz_blocks import _coded, _with_crc
from bootvol.model import Digest
from bootvol.testing.backends import noise
from bootvol.testing.sources import read_all
from bootvol.threads import Threads
from tests.unit.test_decompress import MOST, Slow, contents
from tests.unit.test_imaging import Stream
from tests.unit.test_members import parts, skippables
from tests.waiting import LIMIT, until

examples = settings(max_examples=20, suppress_health_check=list(HealthCheck), deadline=None)
CONTENT = noise(900_000) + bytes(2_000_000) + b"a disk; " * 100_000 + noise(300_001, 1)


def bgzf(content: bytes, size: int = 60_000) -> bytes:
    """Return a BGZF file (SAM specification, 4.1), with the empty block at its end."""
    packed = b""
    for at in [*range(0, len(content), size), len(content)]:
        part = content[at : at + size]
        coder = zlib.compressobj(1, zlib.DEFLATED, -15)
        data = coder.compress(part) + coder.flush()
        packed += b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\6\0BC\2\0"
        packed += (len(data) + 25).to_bytes(2, "little")
        packed += data + zlib.crc32(part).to_bytes(4, "little") + len(part).to_bytes(4, "little")
    return packed


def blocks(content: bytes, size: int = 300_000, *options: str) -> bytes:
    """Return an xz stream of blocks that state their sizes."""
    command = ["xz", "-T2", "-0", f"--block-size={size}", "-c", *options]
    return subprocess.run(command, input=content, capture_output=True, check=True).stdout


def frames(content: bytes, size: int = 200_000) -> bytes:
    """Return zstd frames that state the sizes of their content."""
    return b"".join(
        zstd.compress(content[at : at + size]) for at in range(0, len(content) or 1, size)
    )


PACKERS: dict[str, Callable[[bytes], bytes]] = {"gzip": bgzf, "xz": blocks, "zstd": frames}
packers = pytest.mark.parametrize("name", PACKERS)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make small parts and inputs, so that small images have many."""
    monkeypatch.setattr(parallel, "_cores", lambda: 3)
    monkeypatch.setattr(sections, "_PACKED", 20_000)
    monkeypatch.setattr(sections, "_LEAST_PACKED", 100)
    monkeypatch.setattr(sections, "_CONTENT", 50_000)
    for module in (decoding, parallel):
        monkeypatch.setattr(module, "INPUT", 10_007)
    monkeypatch.setattr(parallel, "_MOST_INPUT", 500_000)
    monkeypatch.setattr(xz_blocks, "_LEAST_BLOCK", 0)


async def opened(
    packed: bytes, threads: Threads, stated: Digest | None = None, memory: Memory | None = None
) -> DecompressingStream:
    """Return the parallel decoder of an image."""
    stream, _ = await unpacked(Stream(packed), stated, MOST, threads, memory or Memory(2, 65536))
    assert isinstance(stream, DecompressingStream)
    assert isinstance(stream._packed, parallel._InParallel)
    return stream


async def in_parallel(
    packed: bytes, threads: Threads, stated: Digest | None = None, step: int = 65536
) -> bytes:
    """Return the decoded content of an image."""
    stream = await opened(packed, threads, stated)
    try:
        return await read_all(stream, step)
    finally:
        await stream.close()


@packers
@pytest.mark.parametrize("step", [4096, 300_000, 10_000_000])
@ensureDeferred
async def test_unpacks(threads: Threads, name: str, step: int) -> None:
    packed = PACKERS[name](CONTENT)
    stated = Digest("sha512", hashlib.sha512(packed).hexdigest())
    assert await in_parallel(packed, threads, stated, step) == CONTENT


@packers
@ensureDeferred
async def test_a_later_part_is_decoded_while_the_first_one_waits(
    threads: Threads, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = threading.Event()
    unpack, run_ahead = Part.unpack, Part._run_ahead

    def first(part: Part, target: memoryview) -> int:
        assert not part._used or ahead.wait(LIMIT)
        return unpack(part, target)

    def later(part: Part) -> None:
        run_ahead(part)
        if part._ahead_by:
            ahead.set()

    monkeypatch.setattr(Part, "unpack", first)
    monkeypatch.setattr(Part, "_run_ahead", later)
    content = noise(3_000_000)
    assert await in_parallel(PACKERS[name](content), threads) == content


@examples
@given(data=st.data(), parts=parts, zeros=st.integers(0, 3000), step=st.sampled_from([999, 10**6]))
@ensureDeferred
async def test_gzip(
    threads: Threads, data: st.DataObject, parts: list[bytes], zeros: int, step: int
) -> None:
    """Members with and without sizes, padding, and foreign bytes at the end."""
    packed = bgzf(parts[0], data.draw(st.sampled_from([100, 5000, 60_000])))
    for part in parts[1:]:
        packed += bgzf(part) if data.draw(st.booleans()) else gzip.compress(part)
    packed += bytes(zeros)
    content = b"".join(parts)
    assert gzip.decompress(packed) == content
    foreign = data.draw(st.sampled_from([b"", noise(700)]))
    assert await in_parallel(packed + foreign, threads, step=step) == content


@examples
@given(data=st.data(), parts=parts, last=skippables, step=st.sampled_from([999, 10**6]))
@ensureDeferred
async def test_zstd(
    threads: Threads, data: st.DataObject, parts: list[bytes], last: bytes, step: int
) -> None:
    flags = (
        zstd.CompressionParameter.checksum_flag,
        zstd.CompressionParameter.content_size_flag,
    )
    packed = data.draw(skippables) + frames(parts[0], 50_000)
    for part in parts[1:]:
        packed += data.draw(skippables)
        packed += zstd.compress(
            part, options={flag: data.draw(st.integers(0, 1)) for flag in flags}
        )
    packed += last
    tool = subprocess.run(["zstd", "-dc"], input=packed, capture_output=True, check=True)
    assert tool.stdout == b"".join(parts)
    padded = packed + bytes(data.draw(st.integers(0, 300)))
    assert await in_parallel(padded, threads, step=step) == tool.stdout


CHECKS = {lzma.CHECK_NONE: 0, lzma.CHECK_CRC32: 4}


def xz_stream(contents: list[bytes], *, sized: list[bool], check: int) -> bytes:
    """Return an xz stream of a block for each content, some without stated sizes."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0}]
    header = b"\xfd7zXZ\0" + _with_crc(bytes([0, check]))
    packed, records = header, b""
    for content, stated in zip(contents, sized, strict=True):
        data = lzma.compress(content, format=lzma.FORMAT_RAW, filters=filters)
        fields = _coded(len(data)) + _coded(len(content)) if stated else b""
        block = bytes([0xC0 if stated else 0]) + fields + b"\x21\1\x10"
        block += bytes(-(len(block) + 1) % 4)
        block = _with_crc(bytes([(len(block) + 1) // 4]) + block)
        sums = zlib.crc32(content).to_bytes(4, "little") if check else b""
        records += _coded(len(block) + len(data) + len(sums)) + _coded(len(content))
        packed += block + data + bytes(-len(data) % 4) + sums
    index = b"\0" + _coded(len(contents)) + records
    index = _with_crc(index + bytes(-len(index) % 4))
    footer = (len(index) // 4 - 1).to_bytes(4, "little") + bytes([0, check])
    return packed + index + zlib.crc32(footer).to_bytes(4, "little") + footer + b"YZ"


@examples
@given(data=st.data(), parts=parts, step=st.sampled_from([999, 10**6]))
@ensureDeferred
async def test_xz(threads: Threads, data: st.DataObject, parts: list[bytes], step: int) -> None:
    """Blocks with and without sizes, streams without blocks, several streams, padding."""
    packed = b""
    for number in range(data.draw(st.integers(1, 3))):
        sized = [data.draw(st.booleans()) or not number + place for place in range(len(parts))]
        packed += xz_stream(parts, sized=sized, check=data.draw(st.sampled_from([*CHECKS])))
        packed += data.draw(st.sampled_from([b"", b"", xz_stream([], sized=[], check=1)]))
    packed += data.draw(st.sampled_from([b"", bytes(400), bytes(400) + lzma.compress(parts[0])]))
    tool = subprocess.run(["xz", "-dc"], input=packed, capture_output=True, check=True)
    assert await in_parallel(packed, threads, step=step) == tool.stdout


@examples
@given(
    name=st.sampled_from([*PACKERS]),
    place=st.integers(0, 2**20),
    flip=st.integers(1, 255),
    cut=st.booleans(),
    end=st.booleans(),
)
@ensureDeferred
async def test_broken_images_are_refused_as_by_one_thread(
    threads: Threads, name: str, place: int, flip: int, *, cut: bool, end: bool
) -> None:
    content = noise(150_000) + bytes(100_000)
    good = PACKERS[name](content) if name != "xz" else blocks(content, 60_000)
    place = place % len(good) if not end else len(good) - 1 - place % 120
    packed = good[:place] + (b"" if cut else bytes([good[place] ^ flip]) + good[place + 1 :])
    if not packed.startswith(good[:512]):
        return
    try:
        expected = await contents(Stream(packed), threads)
    except ImportFailed as error:
        with pytest.raises(type(error)):
            await in_parallel(packed, threads)
    else:
        assert await in_parallel(packed, threads) == expected


@pytest.mark.parametrize("place", range(-48, 0))
@ensureDeferred
async def test_every_byte_of_an_index_is_checked(threads: Threads, place: int) -> None:
    packed = bytearray(blocks(noise(200_000), 60_000))
    packed[place] ^= 4
    with pytest.raises(ImageCorrupt):
        await in_parallel(bytes(packed), threads)


@pytest.mark.parametrize("lost", [0, 1, 2])
@ensureDeferred
async def test_a_lost_block_is_noticed(threads: Threads, lost: int) -> None:
    """All blocks are right, but the index counts one more."""
    contents = [noise(70_000, each) for each in range(3)]
    whole = xz_stream(contents, sized=[True] * 3, check=1)
    rest = contents[:lost] + contents[lost + 1 :]
    less = xz_stream(rest, sized=[True] * 2, check=1)
    index = whole.rindex(b"\0\3", 0, len(whole) - 12)
    packed = less[: less.rindex(b"\0\2", 0, len(less) - 12)] + whole[index:]
    with pytest.raises(ImageCorrupt):
        await in_parallel(packed, threads)


@ensureDeferred
async def test_foreign_bytes_in_the_middle(threads: Threads) -> None:
    """A member's stated size covers foreign bytes: the bytes of later members would be lost.

    Break: `src/bootvol/imaging/parallel.py`: `if part.foreign and (` -> `if False and (`
    """
    first, rest = bgzf(noise(60_000))[:-28], bgzf(noise(60_000, 1))
    size = (len(first) + 299).to_bytes(2, "little")
    with pytest.raises(ImageCorrupt, match="in the middle"):
        await in_parallel(first[:16] + size + first[18:] + noise(300) + rest, threads)


@packers
@pytest.mark.parametrize("stops", [1, 7])
@ensureDeferred
async def test_a_stream_that_breaks_off_goes_on(threads: Threads, name: str, stops: int) -> None:
    """Only bytes on their way are sent twice, and the digest covers all received bytes."""
    packed = PACKERS[name](CONTENT)
    stated = Digest("sha512", hashlib.sha512(packed).hexdigest())
    ends = [len(packed) * (n + 1) // (stops + 1) for n in range(stops)]
    first = Stream(packed[: ends[0]], end=SourceFailed("It broke off."))
    stream, _ = await unpacked(first, stated, MOST, threads, Memory(2, 65536))
    assert isinstance(stream, DecompressingStream)
    got = b""
    buffer = memoryview(bytearray(100_000))
    for end in [*ends[1:], len(packed)]:
        with suppress(SourceFailed):
            while True:
                length = await stream.read_into(buffer)
                got += buffer[:length]
        await stream.close()
        broken = SourceFailed("It broke off.") if end < len(packed) else None
        stream.go_on(Stream(packed[stream.taken : end], end=broken))
    got += await read_all(stream, 300_000)
    assert got == CONTENT
    await stream.close()


@packers
@ensureDeferred
async def test_a_slow_source(threads: Threads, name: str) -> None:
    packed = PACKERS[name](noise(400_000))
    source = Slow(packed, len(packed), None)
    stream, _ = await unpacked(source, None, MOST, threads, Memory(2, 65536))
    assert await read_all(stream, 65536) == noise(400_000)
    await stream.close()


@ensureDeferred
async def test_a_cancellation_is_raised_after_the_decoders_have_ended(
    threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, free = threading.Event(), threading.Event()
    unpack = Part.unpack

    def late(part: Part, target: memoryview) -> int:
        begun.set()
        assert free.wait(LIMIT)
        return unpack(part, target)

    monkeypatch.setattr(Part, "unpack", late)
    packed = frames(noise(400_000))
    source = Slow(packed, len(packed), None)
    stream, _ = await unpacked(source, None, MOST, threads, Memory(2, 65536))
    assert isinstance(stream, DecompressingStream)
    reading = Deferred.fromCoroutine(read_all(stream, 65536))
    ended: list[object] = []
    reading.addBoth(ended.append)
    await until(begun.is_set)
    reading.cancel()
    assert not ended
    free.set()
    await until(lambda: ended)
    assert isinstance(ended[0], Failure)
    assert ended[0].check(CancelledError)
    await stream.close()


@packers
@ensureDeferred
async def test_only_so_much_is_read_and_decoded_ahead(
    threads: Threads, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Break: `src/bootvol/imaging/parallel.py`: `held >= _MOST_INPUT` -> `held < 0`."""
    monkeypatch.setattr(parallel, "_MOST_AHEAD", 1_000_000)
    content = noise(9_000_000)
    packed = PACKERS[name](content)
    source = Stream(packed)
    stream, _ = await unpacked(source, None, MOST, threads, Memory(2, 65536))
    assert isinstance(stream, DecompressingStream)
    assert isinstance(stream._packed, parallel._InParallel)
    buffer = memoryview(bytearray(1000))
    for _ in range(100):
        assert await stream.read_into(buffer) == 1000
        waiting = list(stream._packed._parts)
        assert sum(each.held for each in waiting) < 600_000
        assert sum(each._ahead_by for each in waiting) < 2_000_000
    assert source.read < 3_000_000
    await stream.close()


@packers
@ensureDeferred
async def test_too_many_bytes_are_refused(threads: Threads, name: str) -> None:
    with pytest.raises(ImageTooLarge):
        await in_parallel(PACKERS[name](CONTENT) + bytes(2 * MOST), threads)


@packers
@ensureDeferred
async def test_one_image_at_a_time_is_decoded_in_parallel(threads: Threads, name: str) -> None:
    memory, packed = Memory(2, 65536), PACKERS[name](CONTENT)
    first = await opened(packed, threads, memory=memory)
    with memory.lend() as pool:
        assert pool.size == 65536, "the memory of larger buffers is in use"
    second, _ = await unpacked(Stream(packed), None, MOST, threads, memory)
    assert isinstance(second, DecompressingStream)
    assert not isinstance(second._packed, parallel._InParallel)
    assert await read_all(second, 65536) == CONTENT
    assert await read_all(first, 65536) == CONTENT
    third = await opened(packed, threads, memory=memory)
    del third
    gc.collect()
    await opened(packed, threads, memory=memory)


@pytest.mark.parametrize(
    "packed",
    [gzip.compress(CONTENT), lzma.compress(CONTENT, preset=0), b"\x28\xb5\x2f\xfd" + bytes(600)],
    ids=["gzip", "xz", "zstd"],
)
@ensureDeferred
async def test_images_without_sizes_are_decoded_by_one_thread(
    threads: Threads, packed: bytes
) -> None:
    stream, _ = await unpacked(Stream(packed), None, MOST, threads, Memory(2, 65536))
    assert isinstance(stream, DecompressingStream)
    assert not isinstance(stream._packed, parallel._InParallel)
    await stream.close()


@packers
@ensureDeferred
async def test_the_end_is_known_only_at_the_end(threads: Threads, name: str) -> None:
    """Without its index, an xz stream has not ended, although each block has."""
    packed = PACKERS[name](noise(500_000))
    cut = Stream(packed[:-20], end=SourceFailed("It broke off."))
    stream, _ = await unpacked(cut, None, MOST, threads, Memory(2, 65536))
    assert isinstance(stream, DecompressingStream)
    with pytest.raises(SourceFailed):
        await read_all(stream, 65536)
    assert not stream.ended_by_itself
    await stream.close()
    stream.go_on(Stream(packed[stream.taken :]))
    await read_all(stream, 65536)
    assert stream.ended_by_itself
    await stream.close()


@pytest.mark.parametrize("name", ["xz", "zstd"])
@ensureDeferred
async def test_decoders_with_large_windows_do_not_run_ahead(
    threads: Threads, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several decoders take the memory of several windows.

    Break: `src/bootvol/imaging/parallel.py`: `if needs > _MOST_NEEDS:` -> `if needs < 0:`
    """
    ran: list[Part] = []
    run_ahead = Part._run_ahead

    def recorded(part: Part) -> None:
        ran.append(part)
        run_ahead(part)

    monkeypatch.setattr(Part, "_run_ahead", recorded)
    content = CONTENT[:4_000_000]
    packed = PACKERS[name](content)
    assert await in_parallel(packed, threads) == content
    assert ran
    ran.clear()
    monkeypatch.setattr(parallel, "_MOST_NEEDS", 1000)
    assert await in_parallel(packed, threads) == content
    assert not ran


def test_the_memory_of_an_input_is_used_again_after_its_last_user() -> None:
    spare = Spare()
    buffer = spare.input(100)
    lease = spare.shared(buffer, 3)
    for _ in range(2):
        spare.give_back(lease)
        assert not spare.inputs
    spare.give_back(lease)
    assert spare.input(100) is buffer
    spare.give_back(lease)
    assert not spare.inputs, "a lease that ended counts no more"


@ensureDeferred
async def test_a_shortage_while_decoding_ahead_is_told(
    threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes lost by a failure in a thread end the image, and are not left out.

    Break: `src/bootvol/imaging/parts.py`: `except Exception as error:` -> `except SystemError as
    error:`.
    """
    kind = next(each for each in FORMATS if each.name == "zstd")
    packed = zstd.compress(noise(600_000))
    part = Part(kind, 8 * 1024 * 1024, Spare())
    for at in range(0, len(packed), 100_000):
        part.give(memoryview(packed)[at : at + 100_000], [])
    part.whole = True
    plain = Members.unpack
    failed: list[bool] = []

    def unpack(members: Members, target: memoryview) -> int:
        if part.held < len(packed) and not failed:
            failed.append(True)
            raise MemoryError
        return plain(members, target)

    monkeypatch.setattr(Members, "unpack", unpack)
    part.begin_ahead(threads)
    await until(lambda: failed)
    with suppress(MemoryError):
        await part.stop()
    with pytest.raises(MemoryError):
        part.unpack(memoryview(bytearray(1_000_000)))
