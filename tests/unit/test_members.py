"""Every legal form of the members of a compressed image."""

from __future__ import annotations

import bz2
import gzip
import lzma
import subprocess
import tarfile
import zlib
from pathlib import Path

import pytest
from backports import zstd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pytest_twisted import ensureDeferred

from bootvol.errors import ImageCorrupt, UnsupportedFormat
from bootvol.imaging.decoding import INPUT
from bootvol.testing.backends import noise
from bootvol.threads import Threads
from tests.unit.test_decompress import contents
from tests.unit.test_imaging import Stream

# The pool of threads is the same for all examples; a busy machine may take long for one.
examples = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
parts = st.lists(
    st.one_of(
        st.binary(max_size=300),
        st.integers(0, 300_000).map(bytes),
        st.integers(0, 300_000).map(noise),
    ),
    min_size=1,
    max_size=4,
)
texts = st.binary(max_size=40).map(lambda text: text.replace(b"\0", b""))


@st.composite
def gzip_header(draw: st.DrawFn) -> bytes:
    """Return a header with any flags (RFC 1952, section 2.3)."""
    text, checked, extra, name, comment = (draw(st.booleans()) for _ in range(5))
    flags = text | checked << 1 | extra << 2 | name << 3 | comment << 4
    header = b"\x1f\x8b\x08" + bytes([flags]) + draw(st.binary(min_size=4, max_size=4))
    header += draw(st.sampled_from([b"\0", b"\2", b"\4"])) + draw(st.sampled_from([b"\3", b"\xff"]))
    if extra:
        field = draw(st.binary(max_size=3000))
        header += len(field).to_bytes(2, "little") + field
    if name:
        header += draw(texts) + b"\0"
    if comment:
        header += draw(texts) + b"\0"
    if checked:
        header += (zlib.crc32(header) & 0xFFFF).to_bytes(2, "little")
    return header


@examples
@given(data=st.data(), parts=parts, zeros=st.integers(0, 5000))
@ensureDeferred
async def test_gzip(threads: Threads, data: st.DataObject, parts: list[bytes], zeros: int) -> None:
    packed = b""
    for part in parts:
        member = gzip.compress(part, data.draw(st.integers(0, 9)))
        packed += data.draw(gzip_header()) + member[10:]
    packed += bytes(zeros)
    content = b"".join(parts)
    assert gzip.decompress(packed) == content
    assert await contents(Stream(packed), threads) == content


@examples
@given(data=st.data(), parts=parts)
@ensureDeferred
async def test_xz(threads: Threads, data: st.DataObject, parts: list[bytes]) -> None:
    checks = [lzma.CHECK_NONE, lzma.CHECK_CRC32, lzma.CHECK_CRC64, lzma.CHECK_SHA256]
    packed = b""
    for part in parts:
        packed += lzma.compress(part, check=data.draw(st.sampled_from(checks)), preset=0)
        packed += bytes(4 * data.draw(st.integers(0, 1000)))
    tool = subprocess.run(["xz", "-dc"], input=packed, capture_output=True, check=True)
    assert tool.stdout == b"".join(parts)
    assert await contents(Stream(packed), threads) == tool.stdout


@pytest.mark.parametrize("zeros", [1, 2, 3, 5, 4097])
@pytest.mark.parametrize("last", [True, False])
@ensureDeferred
async def test_xz_with_wrong_padding(threads: Threads, zeros: int, *, last: bool) -> None:
    """The .xz File Format, 2.2: the padding's size must be a multiple of four. xz(1) also refuses
    others.
    """
    stream = lzma.compress(b"x" * 5000)
    packed = stream + bytes(zeros) + (b"" if last else stream)
    assert subprocess.run(["xz", "-dc"], input=packed, capture_output=True, check=False).returncode
    with pytest.raises(ImageCorrupt):
        await contents(Stream(packed), threads)


def skippable(number: int, content: bytes) -> bytes:
    """Return a skippable frame (RFC 8878, 3.1.2)."""
    return (
        (0x184D2A50 + number).to_bytes(4, "little") + len(content).to_bytes(4, "little") + content
    )


skippables = st.lists(
    st.builds(skippable, st.integers(0, 15), st.binary(max_size=2000)), max_size=3
).map(b"".join)


@examples
@given(data=st.data(), parts=parts, last=skippables)
@ensureDeferred
async def test_zstd(threads: Threads, data: st.DataObject, parts: list[bytes], last: bytes) -> None:
    flags = (
        zstd.CompressionParameter.checksum_flag,
        zstd.CompressionParameter.content_size_flag,
    )
    packed = b""
    for part in parts:
        packed += data.draw(skippables)
        packed += zstd.compress(
            part, options={flag: data.draw(st.integers(0, 1)) for flag in flags}
        )
    packed += last
    tool = subprocess.run(["zstd", "-dc"], input=packed, capture_output=True, check=True)
    assert tool.stdout == b"".join(parts)
    assert await contents(Stream(packed), threads) == tool.stdout


@ensureDeferred
async def test_what_pzstd_writes(threads: Threads, tmp_path: Path) -> None:
    content = noise(3_000_000) + bytes(40_000_000) + noise(1_000_000)
    (tmp_path / "disk").write_bytes(content)
    subprocess.run(["pzstd", "-q", "-1", "-p", "2", "disk"], cwd=tmp_path, check=True)
    packed = (tmp_path / "disk.zst").read_bytes()
    assert packed.startswith(b"\x50\x2a\x4d\x18")
    assert packed.count(b"\x28\xb5\x2f\xfd") > 1
    assert await contents(Stream(packed), threads) == content


@ensureDeferred
async def test_a_dictionary_that_is_not_there(threads: Threads) -> None:
    samples = [b"entry %d of a disk: %d\n" % (number, number**3) * 20 for number in range(500)]
    dictionary = zstd.train_dict(samples, 10_000)
    packed = zstd.compress(b"".join(samples), zstd_dict=dictionary)
    with pytest.raises(UnsupportedFormat, match="dictionary"):
        await contents(Stream(packed), threads)


@examples
@given(data=st.data(), parts=parts)
@ensureDeferred
async def test_bzip2(threads: Threads, data: st.DataObject, parts: list[bytes]) -> None:
    packed = b"".join(bz2.compress(part, data.draw(st.integers(1, 9))) for part in parts)
    content = b"".join(parts)
    assert bz2.decompress(packed) == content
    assert await contents(Stream(packed), threads) == content


PACKERS = {
    "gzip": lambda content: gzip.compress(content, 1),
    "bzip2": bz2.compress,
    "xz": lambda content: lzma.compress(content, preset=0),
    "zstd": zstd.compress,
}
#: The beginnings of other formats, by the name in the message.
OTHERS = {
    **{name: pack(noise(3000)) for name, pack in PACKERS.items()},
    "zstd ": skippable(3, b"what pzstd writes first"),
    "lz4": b"\x04\x22\x4d\x18" + noise(3000),
    "a zip archive": b"PK\x03\x04" + noise(3000),
    "a tar archive|as tar": tarfile.TarInfo("disk.raw").tobuf() + bytes(512),
    "qcow2": b"QFI\xfb\0\0\0\3" + noise(3000),
    "vdi": noise(0x40) + b"\x7f\x10\xda\xbe" + noise(3000),
}


def padded(packed: bytes, before: int | None) -> bytes:
    """Add zeros until the first read ends ``before`` bytes behind the zeros; none for None."""
    zeros = 0 if before is None else -(len(packed) + before) % INPUT
    return packed + bytes(zeros // 4 * 4)


@pytest.mark.parametrize("before", [0, 4, 64, 508, None])
@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("name", PACKERS)
@ensureDeferred
async def test_a_member_of_another_format_is_refused_by_name(
    threads: Threads, name: str, other: str, before: int | None
) -> None:
    """Without such a member, the disk would lack its rest.

    The border of two reads may lie within the member's beginning.
    """
    if other.strip() == name:
        return
    packed = padded(PACKERS[name](noise(5000)), before) + OTHERS[other]
    with pytest.raises(UnsupportedFormat, match=f"is {name} at first.*(?:{other.strip()})"):
        await contents(Stream(packed), threads)


@pytest.mark.parametrize("foreign", [b"{ }", b"PK", b"BZ", b"\x1f\x8c", b"Z" * 3000, noise(700)])
@pytest.mark.parametrize("before", [0, 4, 64, 508, None])
@pytest.mark.parametrize("name", ["gzip", "bzip2"])
@ensureDeferred
async def test_other_bytes_behind_the_last_member_are_passed_over(
    threads: Threads, name: str, before: int | None, foreign: bytes
) -> None:
    packed = padded(PACKERS[name](b"disk"), before) + foreign
    assert await contents(Stream(packed), threads) == b"disk"
