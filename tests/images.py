"""Makes images of every readable format, and hostile images, with qemu-img and by hand."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import subprocess
import tarfile
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import attrs
from backports import zstd

from bootvol.testing.backends import noise
from tests.vmdk import Streamed
from tests.waiting import LIMIT

MIB = 1024 * 1024
#: The content of the disk in every good image.
DISK = noise(3 * MIB) + bytes(4 * MIB) + noise(MIB, 2)
#: A disk size that is not a multiple of the sector size.
ODD = len(DISK) - 100


#: The first incompatible features of a qcow2 image: "not closed" and "corrupt" (qcow2
#: specification, "incompatible_features").
MARKED_DIRTY, MARKED_CORRUPT = struct.pack(">Q", 1), struct.pack(">Q", 2)


def qemu_img(*arguments: str | Path) -> None:
    """Run qemu-img."""
    subprocess.run(["qemu-img", *arguments], check=True, capture_output=True, timeout=LIMIT)


def qemu_io(image: Path, commands: Sequence[str], kind: str) -> None:
    """Run commands of qemu-io on an image.

    :param kind: QEMU's name of the format.
    """
    arguments = [each for command in commands for each in ("-c", command)]
    subprocess.run(
        ["qemu-io", "-f", kind, *arguments, image],
        check=True,
        capture_output=True,
        timeout=LIMIT,
    )


def convert(folder: Path, kind: str, options: Sequence[str] = (), disk: bytes = DISK) -> bytes:
    """Return an image of a disk in a format that qemu-img writes."""
    raw, image = folder / "disk.raw", folder / "disk.image"
    raw.write_bytes(disk)
    qemu_img("convert", "-f", "raw", "-O", kind, *options, raw, image)
    content = image.read_bytes()
    raw.unlink()
    image.unlink()
    return content


def mbr(size: int, kind: int = 0x83, begin: int = 1) -> bytes:
    """Return the first sector of a disk with one partition, which ends at ``size`` bytes.

    :param begin: the first sector of the partition.
    """
    partition = struct.pack("<B3xB3xII", 0x80, kind, begin, size // 512 - begin)
    return bytes(446) + partition + bytes(48) + b"\x55\xaa"


def gpt(size: int, sector: int = 512) -> bytes:
    """Return the first two sectors of a disk of ``size`` bytes with a GPT."""
    header = struct.pack("<8s16xQQ", b"EFI PART", 1, size // sector - 1)
    return mbr(2**32 * 512, kind=0xEE).ljust(sector, b"\0") + header.ljust(sector, b"\0")


#: Functions that compress an image, by the name of the format.
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, 6),
    "xz": lambda data: lzma.compress(data, preset=0),
    # As the tool does. Without its checksum, zstd would not detect changed noise.
    "zstd": lambda data: zstd.compress(data, options={zstd.CompressionParameter.checksum_flag: 1}),
    "bzip2": bz2.compress,
}


def ova(content: bytes) -> bytes:
    """Return an archive with a vmdk image and its description."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in {"vm.ovf": b"<Envelope/>", "vm-disk1.vmdk": content}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return target.getvalue()


FIXED = ["-o", "subformat=fixed,force_size"]
#: Bytes in a vhd footer: VirtualBox and its version as the creator, and a geometry of 2 MiB.
VBOX = {28: b"vbox\0\6\0\1Wi2k", 56: struct.pack(">HBB", 60, 4, 17)}


def patched(content: bytes, offset: int, data: bytes) -> bytes:
    """Return ``content`` with ``data`` at ``offset``."""
    return content[:offset] + data + content[offset + len(data) :]


def _snapshot(folder: Path) -> bytes:
    """Return an image with snapshots. Its disk was written to after the snapshots."""
    image = folder / "snapshots.image"
    image.write_bytes(convert(folder, "qcow2", disk=DISK[::-1]))
    for name in ("one", "two"):
        qemu_img("snapshot", "-c", name, image)
    (folder / "later").write_bytes(DISK)
    qemu_img("convert", "-n", "-f", "raw", "-O", "qcow2", folder / "later", image)
    return image.read_bytes()


def _unclosed(folder: Path, *options: str, kind: str = "qcow2") -> bytes:
    """Return an image of :data:`DISK` whose writer was killed."""
    raw, image = folder / "disk.raw", folder / "disk.image"
    raw.write_bytes(DISK)
    qemu_img("create", "-f", kind, *options, image, str(len(DISK)))
    written = ("-c", f"write -s {raw} 0 {len(DISK)}", "-c", "flush", "-c", "sigraise 9")
    subprocess.run(["qemu-io", "-f", kind, *written, image], capture_output=True, timeout=LIMIT)
    return image.read_bytes()


def _dirty(folder: Path) -> bytes:
    """Return a qcow2 image that was not closed, so its refcounts are wrong."""
    content = _unclosed(folder, "-o", "lazy_refcounts=on")
    assert struct.unpack_from(">Q", content, 72)[0] & 1, "it has to be marked as dirty"
    return content


def _without_refcounts(folder: Path) -> bytes:
    """Return a qcow2 image that is marked as dirty, and whose refcounts cannot be found."""
    content = patched(convert(folder, "qcow2", ["-o", "lazy_refcounts=on"]), 72, MARKED_DIRTY)
    (table,) = struct.unpack_from(">Q", content, 48)
    return patched(content, table, struct.pack(">Q", 1 << 40))


def _cut_cluster(folder: Path) -> bytes:
    """Return a qcow2 image that ends within its last cluster. The cluster's rest was never written.

    The last cluster holds the data behind the disk's first 2 MiB: the disk's end was written first.
    """
    part, image = folder / "part", folder / "disk.image"
    options = "extended_l2=on,cluster_size=2M"
    qemu_img("create", "-f", "qcow2", "-o", options, image, str(len(DISK)))
    for start, end in ((7 * MIB, 8 * MIB), (0, 3 * MIB)):
        part.write_bytes(DISK[start:end])
        written = ("-c", f"write -s {part} {start} {end - start}")
        subprocess.run(
            ["qemu-io", "-f", "qcow2", *written, image],
            check=True,
            capture_output=True,
            timeout=LIMIT,
        )
    content = image.read_bytes()
    assert len(content) % (2 * MIB), "the last cluster must not be whole"
    return content


def _saved(folder: Path) -> bytes:
    """Return a qcow2 image with the memory of a running machine."""
    image = folder / "disk.image"
    image.write_bytes(qcow2(folder))
    machine = ["qemu-system-x86_64", "-S", "-m", "32", "-nodefaults", "-display", "none"]
    drive = ["-drive", f"file={image},format=qcow2,if=virtio", "-monitor", "stdio"]
    said = "savevm saved\nquit\n"
    subprocess.run([*machine, *drive], input=said, text=True, capture_output=True, timeout=LIMIT)
    listed = subprocess.run(
        ["qemu-img", "snapshot", "-l", image], capture_output=True, text=True, timeout=LIMIT
    ).stdout
    assert "saved" in listed, "its memory has to be there"
    return image.read_bytes()


def qcow2(folder: Path) -> bytes:
    """Return a good qcow2 image."""
    return convert(folder, "qcow2")


def _streamed(folder: Path) -> bytes:
    """Return a vmdk image in VMware's streamed form, with the place of its tables at its end.

    The structures are those of QEMU's block/vmdk.c, which reads such images, but does not write
    them.
    """
    content = convert(folder, "vmdk", ["-o", "subformat=streamOptimized"])
    content += bytes(-len(content) % 512)
    marker = struct.pack("<QII", 1, 0, 3)
    footer = marker + bytes(512 - len(marker)) + content[:512] + bytes(512)
    return patched(content, 56, b"\xff" * 8) + footer


def _with_snapshots(count: int) -> Callable[[Path], bytes]:
    """Return a function that makes an image with one snapshot, listed many times in its table."""

    def make(folder: Path) -> bytes:
        image = folder / "snapshots.image"
        image.write_bytes(qcow2(folder))
        qemu_img("snapshot", "-c", "one", image)
        content = image.read_bytes()
        (table,) = struct.unpack_from(">Q", content, 64)
        lengths = struct.unpack_from(">HH", content, table + 12)
        (extra,) = struct.unpack_from(">I", content, table + 36)
        entry = content[table : table + 40 + extra + sum(lengths)]
        entry += bytes(-len(entry) % 8)
        content += bytes(-len(content) % 65536)
        return patched(content, 60, struct.pack(">IQ", count, len(content))) + count * entry

    return make


#: Kinds of good images, each with the format to state. Each image holds :data:`DISK`.
GOOD: dict[str, tuple[str | None, Callable[[Path], bytes]]] = {
    "qcow2": (None, qcow2),
    "qcow2-packed": ("qcow2", lambda folder: convert(folder, "qcow2", ["-c"])),
    "qcow2-zstd": (None, lambda at: convert(at, "qcow2", ["-c", "-o", "compression_type=zstd"])),
    "qcow2-2": (None, lambda folder: convert(folder, "qcow2", ["-o", "compat=0.10"])),
    "qcow2-extended": (None, lambda at: convert(at, "qcow2", ["-o", "extended_l2=on"])),
    "qcow2-extended-large": (
        None,
        lambda at: convert(at, "qcow2", ["-o", "extended_l2=on,cluster_size=128k"]),
    ),
    "qcow2-snapshots": (None, _with_snapshots(5000)),
    "qcow2-cut-cluster": (None, _cut_cluster),
    "qcow2-snapshot": (None, _snapshot),
    "qcow2-dirty": (None, _dirty),
    "qcow2-dirty-right": (None, lambda at: patched(qcow2(at), 72, MARKED_DIRTY)),
    "qcow2-without-refcounts": (None, _without_refcounts),
    "qcow2-saved": (None, _saved),
    "qcow2-gz": (None, lambda folder: gzip.compress(qcow2(folder), 1)),
    "vmdk": (None, lambda folder: convert(folder, "vmdk")),
    "vmdk-stream": ("vmdk", lambda at: convert(at, "vmdk", ["-o", "subformat=streamOptimized"])),
    "vmdk-stream-end": (None, _streamed),
    "vmdk-stream-vmware": (None, lambda _: Streamed().image(DISK)),
    "vmdk-stream-gz": (None, lambda _: gzip.compress(Streamed().image(DISK), 1)),
    "vhd": (None, lambda folder: convert(folder, "vpc", ["-o", "force_size"])),
    "vhd-fixed": ("vhd", lambda at: convert(at, "vpc", FIXED)),
    # VirtualBox writes another creator, and a geometry with another size.
    "vhd-vbox": (None, lambda at: vhd(at, VBOX)),
    "vhd-fixed-vbox": ("vhd", lambda at: vhd(at, VBOX, "subformat=fixed")),
    # Hyper-V's image, and an image whose disk was extended later.
    "vhd-win": (None, lambda at: vhd(at, {28: b"win \0\6\0\1Wi2k"})),
    "vhd-grown": (None, lambda at: vhd(at, {40: struct.pack(">Q", MIB)})),
    "vhd-fixed-unstated": (None, lambda at: convert(at, "vpc", FIXED)),
    "vhdx": (None, lambda folder: convert(folder, "vhdx")),
    "vdi": ("vdi", lambda folder: convert(folder, "vdi")),
}


@attrs.frozen
class Hostile:
    """An image that must be refused.

    :ivar code: the code of the error.
    :ivar make: makes the image in an empty folder.
    :ivar stated: the format that the source states.
    """

    code: str
    make: Callable[[Path], bytes]
    stated: str | None = None


def _backed(folder: Path) -> bytes:
    image = folder / "disk.image"
    qemu_img("create", "-f", "qcow2", "-u", "-b", "/etc/passwd", "-F", "raw", image, "1M")
    return image.read_bytes()


def _data_file(folder: Path) -> bytes:
    image, data = folder / "disk.image", folder / "data"
    qemu_img("create", "-f", "qcow2", "-o", f"data_file={data},data_file_raw=on", image, "1M")
    return image.read_bytes()


def _flat(folder: Path) -> bytes:
    """Return a sparse vmdk whose descriptor names another file."""
    content = convert(folder, "vmdk")
    start = content.index(b"RW ")
    end = content.index(b"\n", start)
    return patched(content, start, b'RW 16 FLAT "/etc/passwd" 0'.ljust(end - start))


def _vmdk_difference(folder: Path) -> bytes:
    """Return a vmdk image that has a parent, and does not say where."""
    content = convert(folder, "vmdk")
    return patched(content, content.index(b"parentCID=") + len(b"parentCID="), b"12345678")


def _vdi_difference(folder: Path) -> bytes:
    """Return a vdi image with a parent: the id of another image is in its header."""
    return patched(convert(folder, "vdi"), 0x1A8, b"1" * 16)


def _vhdx_4096(folder: Path) -> bytes:
    """Return a vhdx image of a disk whose sectors have 4096 bytes.

    MS-VHDX, sections 2.6 and 2.6.2.4: the table of metadata, and the item "logical sector size".
    """
    content = convert(folder, "vhdx")
    table = content.index(b"metadata", MIB)
    item = uuid.UUID("8141bf1d-a96f-4709-ba47-f233a8faab5f").bytes_le
    (place,) = struct.unpack_from("<I", content, content.index(item, table) + 16)
    return patched(content, table + place, struct.pack("<I", 4096))


def _large(folder: Path) -> bytes:
    image = folder / "disk.image"
    qemu_img("create", "-f", "qcow2", image, "2G")
    return image.read_bytes()


def _encrypted(folder: Path) -> bytes:
    image = folder / "disk.image"
    qemu_img(
        *("create", "-f", "qcow2", "--object", "secret,id=s,data=x"),
        # Not luks: qemu-img measures time to make its key, and fails at that on a busy machine.
        *("-o", "encrypt.format=aes,encrypt.key-secret=s", image, "1M"),
    )
    return image.read_bytes()


def vhd(folder: Path, changes: Mapping[int, bytes], *options: str) -> bytes:
    """Return a vhd image with changed bytes in its footer, and in the footer's copy at the start.

    :param changes: bytes by their offset in the footer. The checksum is corrected.
    :param options: options of qemu-img.
    """
    content = convert(folder, "vpc", ["-o", ",".join(["force_size", *options])])
    footer = content[-512:]
    for place, data in {**changes, 64: bytes(4)}.items():
        footer = patched(footer, place, data)
    footer = patched(footer, 64, struct.pack(">I", ~sum(footer) & 0xFFFFFFFF))
    if content.startswith(b"conectix"):
        content = patched(content, 0, footer)
    return content[:-512] + footer


def _l1(content: bytes) -> int:
    """Return the offset of a qcow2 image's L1 table."""
    return int(struct.unpack_from(">Q", content, 40)[0])


def _l2(content: bytes) -> int:
    """Return the offset of a qcow2 image's first L2 table."""
    return int(struct.unpack_from(">Q", content, _l1(content))[0]) & ~(1 << 63)


def _lying(entry: int) -> Callable[[Path], bytes]:
    """Return a function that makes an image whose first cluster's entry is ``entry``."""

    def make(folder: Path) -> bytes:
        content = qcow2(folder)
        return patched(content, _l2(content), struct.pack(">Q", entry))

    return make


def _cut(kind: str, count: int, *options: str) -> Callable[[Path], bytes]:
    """Return a function that makes an image without its last ``count`` bytes."""
    return lambda folder: convert(folder, kind, options)[:-count]


def _cut_at_l1(more: int) -> Callable[[Path], bytes]:
    """Return a function that makes an image cut off ``more`` bytes behind its L1 table's start."""

    def make(folder: Path) -> bytes:
        content = qcow2(folder)
        return content[: _l1(content) + more]

    return make


def _cut_in_l2(folder: Path) -> bytes:
    """Return an image that ends in the middle of its L2 table, which comes last.

    The image is marked as dirty: its refcounts do not count the table's new place, and are not
    trusted.
    """
    content = qcow2(folder)
    content += bytes(-len(content) % 65536)
    table = content[_l2(content) : _l2(content) + 65536]
    content = patched(content, _l1(content), struct.pack(">Q", 1 << 63 | len(content)))
    return patched(content, 72, MARKED_DIRTY) + table[:512]


def _logged(folder: Path) -> bytes:
    """Return a vhdx image with a log to replay: its headers name the log again."""
    content = _unclosed(folder, kind="vhdx")
    log = content.index(b"loge", MIB)
    for at in (0x10000, 0x20000):
        # MS-VHDX, section 2.2.2: the checksum, then behind three fields the log's GUID.
        header = patched(content[at : at + 4096], 48, content[log + 32 : log + 48])
        header = patched(header, 4, bytes(4))
        content = patched(content, at, patched(header, 4, struct.pack("<I", _crc32c(header))))
    return content


def _crc32c(data: bytes) -> int:
    """Return a CRC-32C (RFC 3385, Castagnoli's polynomial, with reversed bits)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def _partitioned(folder: Path) -> bytes:
    """Return a qcow2 image that is also a partitioned disk."""
    entry = bytes([0x80, 0, 2, 0, 0x83, 0, 0, 0]) + struct.pack("<II", 1, 100)
    return patched(qcow2(folder), 446, entry + bytes(48) + b"\x55\xaa")


def _greedy_xz(_folder: Path) -> bytes:
    """Return an image that needs a gigabyte of memory to decompress a few bytes."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 20}]
    content = bytearray(lzma.compress(DISK, check=lzma.CHECK_NONE, filters=filters))
    # The block's header: size, flags, filter id, size of properties, then the dictionary's size.
    content[12 + 4] = 38
    size = (content[12] + 1) * 4
    content[12 + size - 4 : 12 + size] = struct.pack("<I", _crc32(content[12 : 12 + size - 4]))
    return bytes(content)


def _crc32(data: bytes | bytearray) -> int:
    import zlib

    return zlib.crc32(data)


HOSTILE = {
    "backing-file": Hostile("image-refers-elsewhere", _backed),
    "data-file": Hostile("image-refers-elsewhere", _data_file),
    "vmdk-extent": Hostile("image-refers-elsewhere", _flat),
    "vmdk-descriptor": Hostile(
        "image-refers-elsewhere",
        lambda _: b'# Disk DescriptorFile\nversion=1\nRW 16 FLAT "/etc/passwd" 0\n',
    ),
    "not-raw": Hostile("format-mismatch", qcow2, "raw"),
    "not-qcow2": Hostile("format-mismatch", lambda _: DISK, "qcow2"),
    "not-vmdk": Hostile("format-mismatch", qcow2, "vmdk"),
    "nested": Hostile("format-mismatch", lambda at: convert(at, "qcow2", disk=qcow2(at))),
    "polyglot": Hostile("image-ambiguous", _partitioned),
    "no-disk": Hostile("not-a-disk", lambda at: convert(at, "qcow2", disk=b"")),
    "no-disk-vdi": Hostile("not-a-disk", lambda at: convert(at, "vdi", disk=b"")),
    "disk-too-large": Hostile("image-too-large", _large),
    "bomb": Hostile("image-too-large", lambda _: gzip.compress(bytes(1025 * MIB), 1)),
    "greedy": Hostile("image-bomb", _greedy_xz),
    "lying-overlap": Hostile("image-corrupt", _lying(1 << 63 | 1 << 16)),
    "lying-beyond": Hostile("container-truncated", _lying(1 << 63 | 1 << 40)),
    "lying-askew": Hostile("image-corrupt", _lying(1 << 63 | 0x50200)),
    "strange-feature": Hostile(
        "unsupported-format", lambda at: patched(qcow2(at), 0x48, struct.pack(">Q", 1 << 40))
    ),
    "next-feature": Hostile(
        "unsupported-format", lambda at: patched(qcow2(at), 0x48, struct.pack(">Q", 1 << 5))
    ),
    "qcow-1": Hostile("unsupported-format", lambda at: convert(at, "qcow")),
    "qcow-4": Hostile("unsupported-format", lambda at: patched(qcow2(at), 4, b"\0\0\0\4")),
    "marked-corrupt": Hostile(
        "image-needs-repair", lambda at: patched(qcow2(at), 72, MARKED_CORRUPT)
    ),
    "dirty-beyond": Hostile(
        "container-truncated",
        lambda at: patched(_lying(1 << 63 | 1 << 40)(at), 72, MARKED_DIRTY),
    ),
    "dirty-askew": Hostile(
        "image-corrupt", lambda at: patched(_lying(1 << 63 | 0x50200)(at), 72, MARKED_DIRTY)
    ),
    "dirty-cut": Hostile(
        "container-truncated",
        lambda at: patched(_cut("qcow2", 2 * MIB)(at), 72, MARKED_DIRTY),
    ),
    "vhdx-log": Hostile("image-needs-repair", _logged),
    "odd-vhd": Hostile("image-corrupt", lambda at: vhd(at, {48: struct.pack(">Q", ODD)})),
    "vhd-difference": Hostile(
        "image-refers-elsewhere", lambda at: vhd(at, {60: struct.pack(">I", 4)})
    ),
    "vmdk-difference": Hostile("image-refers-elsewhere", _vmdk_difference),
    "vdi-difference": Hostile("unsupported-format", _vdi_difference),
    "vhdx-4096": Hostile("unsupported-format", _vhdx_4096),
    "encrypted": Hostile("unsupported-format", _encrypted),
    "head-only": Hostile("container-truncated", lambda at: qcow2(at)[:300]),
    "head-only-vhdx": Hostile("container-truncated", lambda at: convert(at, "vhdx")[:100_000]),
    "vhd-fixed-sum": Hostile(
        "image-corrupt", lambda at: patched(convert(at, "vpc", FIXED), 64 - 512, b"wron")
    ),
    "vhd-without-head": Hostile(
        "image-corrupt", lambda at: patched(convert(at, "vpc"), 0, noise(512, 3))
    ),
    "cut-qcow2": Hostile("container-truncated", _cut("qcow2", 100)),
    "cut-qcow2-far": Hostile("container-truncated", _cut("qcow2", 2 * MIB)),
    "cut-qcow2-packed": Hostile("container-truncated", _cut("qcow2", MIB, "-c")),
    "cut-qcow2-l1": Hostile("container-truncated", _cut_at_l1(0)),
    "cut-qcow2-in-l1": Hostile("container-truncated", _cut_at_l1(4)),
    "cut-qcow2-refcounts": Hostile("container-truncated", _cut_at_l1(-0x8000)),
    "cut-qcow2-l2": Hostile("container-truncated", _cut_in_l2),
    "cut-vmdk": Hostile("container-truncated", _cut("vmdk", 1000)),
    "cut-vmdk-stream": Hostile(
        "container-truncated", _cut("vmdk", MIB, "-o", "subformat=streamOptimized")
    ),
    "cut-vmdk-stream-end": Hostile("container-truncated", lambda at: _streamed(at)[:-1000]),
    "cut-vmdk-stream-far": Hostile("container-truncated", lambda at: _streamed(at)[:-MIB]),
    "cut-vhd": Hostile("container-truncated", _cut("vpc", 100)),
    "cut-vhd-far": Hostile("container-truncated", _cut("vpc", MIB)),
    "cut-vhdx": Hostile("container-truncated", _cut("vhdx", 100)),
    "cut-vhdx-far": Hostile("container-truncated", _cut("vhdx", MIB)),
    "cut-vdi": Hostile("container-truncated", _cut("vdi", 100)),
}
