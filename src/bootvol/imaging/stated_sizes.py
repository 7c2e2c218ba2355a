"""Finds how long a disk has to be, by its partition table or file system.

A part of a disk begins like the whole disk.
"""

from __future__ import annotations

import struct
from typing import Final

#: UEFI specification, 5.2.1 "Legacy Master Boot Record": four records, and a signature.
_RECORDS, _RECORD, _COUNT = 446, 16, 4
_SIGNED: Final = b"\x55\xaa"
#: A record: whether to boot from the partition, the kind, the first sector, the number of sectors.
_PARTITION: Final = struct.Struct("<B3xB3xII")
_BOOTABLE: Final = (0, 0x80)
#: The kinds of an unused record, and of a partition that only protects a GPT and may have any size.
_NO_DATA: Final = {0, 0xEE}
#: UEFI specification, 5.3.2 "GPT Header": MyLBA, AlternateLBA.
_HEADER: Final = struct.Struct("<8s16xQQ")
_GPT: Final = b"EFI PART"
#: Sizes of sectors in bytes.
_SECTOR, _LARGE_SECTOR = 512, 4096
#: Names of file systems in boot sectors, by offset.  Such a sector has no partition table (FAT
#: specification, "BS_FilSysType"; exFAT specification, "FileSystemName Field").
_FILE_SYSTEMS: Final = {(3, b"NTFS"), (3, b"EXFAT"), (54, b"FAT"), (82, b"FAT")}
#: ECMA-119, 8.4 "Primary Volume Descriptor": kind and name, number and size of the logical blocks.
_ISO: Final = struct.Struct("<6s74xI44xH")
_ISO_PLACE, _ISO_NAME = 32768, b"\1CD001"
#: Linux, fs/ext4/ext4.h, "ext4_super_block": number of blocks, the logarithm of their size, the
#: magic, features, and the upper half of the number.
_EXT: Final = struct.Struct("<4xI16xI28xH38xI236xI")
_EXT_PLACE, _EXT_NAME, _EXT_64_BITS = 1024, 0xEF53, 0x80
#: Linux, fs/xfs/libxfs/xfs_format.h, "xfs_dsb": the magic, the size and the number of blocks.
_XFS: Final = struct.Struct(">4sIQ")
#: Linux, fs/squashfs/squashfs_fs.h, "squashfs_super_block": the magic, and the number of bytes.
_SQUASHFS: Final = struct.Struct("<4s36xQ")


def needed(head: bytes) -> int:
    """Return the fewest bytes of a disk that begins so; 0 if nothing states a size.

    :param head: the first 36 KiB of the disk, or all of a shorter disk.
    """
    # Hybrid ISO images also have partition tables, which are often wrong.
    return _needed_by_iso(head) or _needed_by_table(head) or _needed_by_file_system(head)


def _needed_by_iso(head: bytes) -> int:
    if len(head) < _ISO_PLACE + _ISO.size:
        return 0
    name, blocks, size = _ISO.unpack_from(head, _ISO_PLACE)
    return int(blocks * size) if name == _ISO_NAME else 0


def _needed_by_file_system(head: bytes) -> int:
    if len(head) < _EXT_PLACE + _EXT.size:
        return 0
    blocks, power, magic, features, upper = _EXT.unpack_from(head, _EXT_PLACE)
    # The largest block has 64 KiB.
    if magic == _EXT_NAME and power <= 6:
        more = upper << 32 if features & _EXT_64_BITS else 0
        return int((blocks + more) << (power + 10))
    name, size, blocks = _XFS.unpack_from(head)
    if name == b"XFSB":
        return int(blocks * size)
    name, length = _SQUASHFS.unpack_from(head)
    return int(length) if name == b"hsqs" else 0


def _needed_by_table(head: bytes) -> int:
    for sector in (_SECTOR, _LARGE_SECTOR):
        if len(head) >= sector + _HEADER.size:
            name, own, alternate = _HEADER.unpack_from(head, sector)
            if name == _GPT and own == 1:
                # A copy of the header fills the last sector of the disk.
                return int(alternate + 1) * sector
    return _needed_by_mbr(head)


def _needed_by_mbr(head: bytes) -> int:
    signed = head[_SECTOR - len(_SIGNED) : _SECTOR] == _SIGNED
    if not signed or any(head.startswith(name, at) for at, name in _FILE_SYSTEMS):
        return 0
    records = [_PARTITION.unpack_from(head, _RECORDS + _RECORD * n) for n in range(_COUNT)]
    if any(bootable not in _BOOTABLE for bootable, *_ in records):
        return 0
    # An image may end within its last partition: OpenWrt leaves the padding behind a squashfs out.
    # So the image needs the first sector of each partition only.
    needed = (begin + 1 for _, kind, begin, count in records if count and kind not in _NO_DATA)
    return int(max(needed, default=0)) * _SECTOR
