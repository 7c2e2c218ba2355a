"""The one disk in a tar archive, in every form of tar(1)."""

from __future__ import annotations

import subprocess
import tarfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_twisted import ensureDeferred

from bootvol.errors import (
    ImageAmbiguous,
    ImageBomb,
    ImageCorrupt,
    ImportFailed,
    SourceFailed,
    UnsupportedFormat,
)
from bootvol.imaging.archive import Tar
from bootvol.imaging.decompress import DecompressingStream, unpacked
from bootvol.testing.backends import noise
from bootvol.threads import Threads
from tests.fuzzing import fuzz
from tests.images import MIB, PACKERS
from tests.unit.test_decompress import MOST, contents
from tests.unit.test_imaging import Stream

DISK = noise(100_000) + bytes(MIB) + noise(5000) + bytes(MIB // 2) + noise(3 * 4096) + bytes(9000)
FORMS = [
    "--format=oldgnu -S",
    "--format=gnu",
    "--format=posix",
    "--format=posix -S",
    "--format=posix -S --sparse-version=0.0",
    "--format=posix -S --sparse-version=0.1",
    "--format=ustar",
    "--format=v7",
]


def tar(folder: Path, form: str, *names: str) -> bytes:
    """Return an archive of files; each file is the disk unless the name ends in ovf."""
    for name in names:
        file = folder / name
        file.write_bytes(b"<Envelope/>" if name.lower().endswith("ovf") else DISK)
        if not name.lower().endswith("ovf"):
            subprocess.run(["fallocate", "--dig-holes", file], check=True)
    command = ["tar", *form.split(), "-cf", "archive", *names]
    subprocess.run(command, cwd=folder, check=True)
    return (folder / "archive").read_bytes()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("packing", ["", *PACKERS])
@ensureDeferred
async def test_the_one_disk(tmp_path: Path, threads: Threads, form: str, packing: str) -> None:
    packed = tar(tmp_path, form, "a.ovf", "disk.raw")
    packed = PACKERS[packing](packed) if packing else packed
    assert await contents(Stream(packed), threads) == DISK


@pytest.mark.parametrize(
    ("names", "error"),
    [
        (["a.ovf"], UnsupportedFormat),
        (["disk.raw", "b.vmdk"], ImageAmbiguous),
        (["disk.raw", "b.iso"], ImageAmbiguous),
        (["a.ovf", "b.iso"], UnsupportedFormat),
    ],
)
@ensureDeferred
async def test_no_disk_or_several(
    tmp_path: Path, threads: Threads, names: list[str], error: type[Exception]
) -> None:
    with pytest.raises(error):
        await contents(Stream(tar(tmp_path, "--format=gnu", *names)), threads)


@pytest.mark.parametrize(
    "names", [["a.ovf", "disk.vmdk", "b.iso"], ["a.OVF", "b.iso", "disk.vmdk"]]
)
@ensureDeferred
async def test_the_disk_beside_a_cdrom(tmp_path: Path, threads: Threads, names: list[str]) -> None:
    assert await contents(Stream(tar(tmp_path, "--format=ustar", *names)), threads) == DISK


@pytest.mark.parametrize("kept", [700, 50_000, -10240])
@ensureDeferred
async def test_an_archive_that_is_cut_off(tmp_path: Path, threads: Threads, kept: int) -> None:
    packed = tar(tmp_path, "--format=gnu", "disk.raw")
    end = len(packed.rstrip(b"\0")) if kept < 0 else kept
    with pytest.raises(ImageCorrupt):
        await contents(Stream(packed[:end]), threads)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("packing", ["", "gzip"])
@ensureDeferred
async def test_an_archive_without_its_last_blocks(
    tmp_path: Path, threads: Threads, form: str, packing: str
) -> None:
    """Accept the archive, as tar(1) does: all members are complete."""
    whole = tar(tmp_path, form, "disk.raw", "a.ovf")
    bare = whole[: len(whole.rstrip(b"\0")) + 511 & -512]
    assert len(bare) < len(whole)
    stream, _ = await unpacked(
        Stream(PACKERS[packing](bare) if packing else bare), None, MOST, threads
    )
    assert isinstance(stream, DecompressingStream)
    got = bytearray()
    assert not await read_on(stream, got)
    assert got == DISK
    # The end of the source alone would not prove the archive complete.
    assert stream.ended_by_itself is bool(packing)
    await stream.close()


@pytest.mark.parametrize("stops", [[512], [700], [513, 1024, 1025], [50_000, 50_100, 100_000]])
@pytest.mark.parametrize("packing", ["", *PACKERS])
@ensureDeferred
async def test_an_archive_whose_source_breaks_off_goes_on(
    tmp_path: Path, threads: Threads, packing: str, stops: list[int]
) -> None:
    """Break off before the disk, between a header and its data, and within the disk."""
    packed = tar(tmp_path, "--format=posix -S", "a.ovf", "disk.raw")
    packed = PACKERS[packing](packed) if packing else packed
    disk: DecompressingStream | None = None
    got = bytearray()
    for stop in [*stops, len(packed)]:
        begin = disk.taken if disk is not None else 0
        end = SourceFailed("It broke off.") if stop < len(packed) else None
        source = Stream(packed[begin:stop], end=end)
        if disk is not None and begin:
            disk.go_on(source)
        else:
            assert not got
            try:
                found, _ = await unpacked(source, None, MOST, threads)
            except SourceFailed:
                continue
            assert isinstance(found, DecompressingStream)
            disk = found
        assert await read_on(disk, got) is (end is not None)
        await disk.close()
    assert got == DISK


async def read_on(disk: DecompressingStream, got: bytearray) -> bool:
    """Append the bytes to ``got``; return whether the stream broke off."""
    buffer = memoryview(bytearray(30_000))
    try:
        while length := await disk.read_into(buffer):
            got += buffer[:length]
    except SourceFailed:
        return True
    return False


def member(name: str = "disk.raw", kind: bytes = tarfile.REGTYPE, size: int = 0) -> bytes:
    """Return a header. The stated size may be wrong."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def whole(data: bytes) -> bytes:
    """Return the data, padded with zeros to a whole block."""
    return data + bytes(-len(data) % 512)


def pax(*records: bytes) -> bytes:
    """Return a pax member, for the headers of the next member."""
    data = b"".join(records)
    return member("pax", tarfile.XHDTYPE, len(data)) + whole(data)


def record(key: str, value: str) -> bytes:
    """Return a record of a pax header."""
    rest = f" {key}={value}\n"
    length = len(rest) + 1
    while len(f"{length}{rest}") != length:
        length += 1
    return f"{length}{rest}".encode()


def sparse(numbers: str, size: str) -> bytes:
    """Return the header of a disk with holes and 1,024 bytes of data."""
    said = {"major": "0", "minor": "1", "name": "disk.raw", "map": numbers, "realsize": size}
    records = [record(f"GNU.sparse.{key}", value) for key, value in said.items()]
    return pax(*records) + member(size=1024) + b"d" * 1024


def zeros(key: str, value: str) -> bytes:
    """Return a record of a sparse disk in GNU's format 0.0."""
    return record("GNU.sparse.size", "4096") + record(f"GNU.sparse.{key}", value)


def sparse_in_data(told: bytes) -> bytes:
    """Return a sparse disk with the map of its data before its first byte."""
    said = {"major": "1", "minor": "0", "name": "disk.raw", "realsize": "4096"}
    records = [record(f"GNU.sparse.{key}", value) for key, value in said.items()]
    data = whole(told)
    return pax(*records) + member(size=len(data) + 1024) + data + b"d" * 1024


def old_sparse(
    parts: Sequence[tuple[int, int]],
    size: bytes = b"00000005000",
    *,
    ends: bool = True,
    name: str = "disk.raw",
) -> bytes:
    """Return the header of a disk with holes in GNU's old form, and 1,024 bytes of data.

    :param size: the size of the disk in octal digits.
    :param ends: whether the last block of parts says that no other follows.
    """
    fields = [b"%011o\0%011o\0" % part for part in parts]
    header = bytearray(member(name, tarfile.GNUTYPE_SPARSE, 1024))
    more = [b"".join(fields[at : at + 21]) for at in range(4, len(fields), 21)]
    header[386 : 386 + 96] = b"".join(fields[:4]).ljust(96, b"\0")
    header[482] = bool(more)
    header[483 : 483 + len(size)] = size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    blocks = [
        block.ljust(504, b"\0") + bytes([number < len(more) or not ends]) + bytes(7)
        for number, block in enumerate(more, 1)
    ]
    return bytes(header) + b"".join(blocks) + b"d" * 1024


END = bytes(1024)
RIGHT = b"d" * 1024
RIGHT_ONE = member(size=1024) + RIGHT
HOSTILE = {
    "a size that is more than comes": (member(size=4096) + RIGHT + END, ImageCorrupt),
    "a size beyond all disks": (member(size=2**62) + RIGHT + END, ImageCorrupt),
    "a size that is less than comes": (member(size=512) + RIGHT + END, ImageCorrupt),
    "a negative size": (member(size=-512) + RIGHT + END, ImageCorrupt),
    "a negative size in pax": (pax(record("size", "-1")) + member() + END, ImageCorrupt),
    "a size in pax that is no number": (pax(record("size", "1_0")) + member() + END, ImageCorrupt),
    "a long header": (member("pax", tarfile.XHDTYPE, 2**40) + RIGHT, ImageCorrupt),
    "a long name": (member("name", tarfile.GNUTYPE_LONGNAME, 2**40) + RIGHT, ImageCorrupt),
    "a record of no length": (pax(b"0 path=x\n") + member() + END, ImageCorrupt),
    "a record beyond its header": (pax(b"99 path=x\n") + member() + END, ImageCorrupt),
    "a record without a key": (pax(b"7 path\n") + member() + END, ImageCorrupt),
    "parts that overlap": (sparse("0,512,256,512", "4096") + END, ImageCorrupt),
    "parts in disorder": (sparse("1024,512,0,512", "4096") + END, ImageCorrupt),
    "parts beyond the disk": (sparse("0,512,4000,512", "4096") + END, ImageCorrupt),
    "more parts than data": (sparse("0,512,1024,2048", "4096") + END, ImageCorrupt),
    "more data than parts": (sparse("0,512", "4096") + END, ImageCorrupt),
    "half a part": (sparse("0,512,1024", "4096") + END, ImageCorrupt),
    "negative parts": (sparse("0,512,-1,512", "4096") + END, ImageCorrupt),
    "old parts that overlap": (old_sparse([(0, 1024), (512, 512)]) + END, ImageCorrupt),
    "old parts without an end": (old_sparse([(0, 512)] * 200_000, ends=False) + END, ImageBomb),
    "an old size that is no number": (old_sparse([(0, 1024)], b"a size") + END, ImageCorrupt),
    "no size of a disk with holes": (sparse("0,1024", "") + END, ImageCorrupt),
    "too many parts": (sparse_in_data(b"9999999\n" + b"0\n1\n") + END, ImageCorrupt),
    "more parts than are told": (sparse_in_data(b"700\n0\n512\n") + END, ImageCorrupt),
    "no count of parts": (sparse_in_data(b"7" * 600) + END, ImageCorrupt),
    "a part without a length": (pax(zeros("offset", "0")) + RIGHT_ONE, ImageCorrupt),
    "two places of a part": (
        pax(zeros("offset", "0"), zeros("offset", "512")) + RIGHT_ONE,
        ImageCorrupt,
    ),
    "a header of nothing": (RIGHT_ONE + pax(record("path", "x")), ImageCorrupt),
    "a hard link": (member(kind=tarfile.LNKTYPE) + END, UnsupportedFormat),
    "a symbolic link": (member(kind=tarfile.SYMTYPE) + END, UnsupportedFormat),
    "a device": (member(kind=tarfile.BLKTYPE) + END, UnsupportedFormat),
    "a folder": (member("disk.raw/", tarfile.DIRTYPE) + END, UnsupportedFormat),
    "what another volume begins": (member(kind=b"M") + END, UnsupportedFormat),
    "members for ever": (member("x") * 1001 + END, ImageBomb),
    "names for ever": (pax(record("path", "x")) * 1001 + END, ImageBomb),
    "long headers for ever": (pax(b"5 a=\n" * 200_000) * 5 + RIGHT_ONE + END, ImageBomb),
    "long maps for ever": (
        old_sparse([(0, 1)] * 90_000, name="x") * 2 + RIGHT_ONE + END,
        ImageBomb,
    ),
    "another archive behind": (member() + END + member() + END, ImageCorrupt),
}


@pytest.mark.parametrize(("archive", "error"), HOSTILE.values(), ids=HOSTILE)
@ensureDeferred
async def test_hostile_archives(
    threads: Threads, archive: bytes, error: type[ImportFailed]
) -> None:
    """No archive takes much time or memory, or gives bytes that tar(1) would not.

    Break: `src/bootvol/imaging/archive.py`: `if size > left:` -> `if size > _LONGEST * 9:`.
    """
    with pytest.raises(error):
        await contents(Stream(archive), threads)


@pytest.mark.parametrize(
    "archive",
    [
        member("../../../etc/disk.raw", size=1024) + RIGHT,
        member("/disk.raw", size=1024) + RIGHT,
        member("x", size=1024) + END + member(size=1024) + RIGHT,
        member("._disk.raw", size=1024) + END + member(size=1024) + RIGHT,
        member("a.raw", tarfile.SYMTYPE) + member(size=1024) + RIGHT,
        member("l", tarfile.GNUTYPE_LONGNAME, 9) + whole(b"disk.raw\0")
        + member("l", tarfile.GNUTYPE_LONGLINK, 9) + whole(b"x" * 9)
        + member("x", size=1024) + RIGHT,
        pax(record("path", "disk.raw"), record("size", "1024"), record("comment", "=")) + member()
        + RIGHT,
        sparse("0,512,1024,0,2048,512", "2560"),
        old_sparse([(0, 512), (2048, 512)]),
        old_sparse([(0, 512), *((512, 0),) * 60, (2048, 512)]),
    ],
)  # fmt: skip
@ensureDeferred
async def test_odd_archives(threads: Threads, archive: bytes) -> None:
    """Names lead nowhere, and members other than disks are skipped."""
    got = await contents(Stream(archive + END), threads)
    assert got.replace(b"\0", b"") == RIGHT


def test_parts_that_never_end_are_not_kept() -> None:
    """Refuse a line without an end long before all stated bytes have come."""
    said = {"major": "1", "minor": "0", "name": "disk.raw", "realsize": "4096"}
    records = [record(f"GNU.sparse.{key}", value) for key, value in said.items()]
    told = b"100\n" + b"1" * 8192
    with pytest.raises(ImageCorrupt):
        Tar().decompress(pax(*records) + member(size=2**40) + told, 512)


@fuzz(100)
@given(st.lists(st.tuples(st.integers(0, 3000), st.binary(max_size=20)), max_size=6), st.data())
def test_broken_archives_end_in_named_errors(
    changes: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    """Any change or cut gives a disk, or an error with a readable message.

    Break: `src/bootvol/imaging/archive.py`: `except (tarfile.HeaderError, ValueError) as error:` ->
    `except KeyError as error:`.
    """
    archive = bytearray(sparse("0,512,1024,0,2048,512", "2560") + member("x") + END)
    for place, change in changes:
        archive[place : place + len(change)] = change
    cuts = data.draw(st.lists(st.integers(0, len(archive)), max_size=5).map(sorted))
    decoder = Tar()
    out = 0
    try:
        for begin, end in pairwise([0, *cuts, len(archive)]):
            given_now = bytes(archive[begin:end])
            while not decoder.eof:
                piece = decoder.decompress(given_now, 512)
                given_now = b""
                out += len(piece)
                if len(piece) < 512 or out > 1_000_000:
                    break
    except ImportFailed:
        pass
