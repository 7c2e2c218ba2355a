"""Judges an image by its first and last bytes: disks, unsupported formats, other files.

:mod:`.signatures` has the tables of signatures, with their sources: F, B and Q.
"""

from __future__ import annotations

import re
import zlib
from typing import Final

from bootvol.errors import ImportFailed, NotADisk, UnsupportedFormat
from bootvol.imaging.signatures import DISKS, ENDS, OTHERS, UNREAD
from bootvol.imaging.structures import kind_by_structure

#: Number of first bytes with signatures of disks: the furthest signature lies in UFS2's superblock.
LOOK: Final = 68 * 1024
#: The fewest bytes of a certain signature.  A disk may contain a shorter signature by chance.  So a
#: shorter signature counts only if no signature of a disk is found.
_CERTAIN: Final = 4
_BLOCK: Final = 512

#: The beginnings of images from gzip and bzip2.  Raw disks may begin like the short magics of these
#: formats, but not like these longer beginnings.  RFC 1952, section 2.3.1: deflate is the only
#: method, and the upper bits of the flags are zero.  bzip2's decompress.c: the level, and the begin
#: of a block or the end of the stream.
GZIP: Final = re.compile(rb"\x1f\x8b\x08[\0-\x1f]")
BZIP2: Final = re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)")

#: The signature of an encrypted disk.  LUKS1 and LUKS2 On-Disk Format
_LUKS: Final = b"LUKS\xba\xbe"


def tells_a_disk(head: bytes) -> bool:
    """Return whether the first bytes of an image have the signature of a disk.

    :param head: the image's first :data:`LOOK` bytes, or all of a shorter image.
    """
    return any(head.startswith(magic, offset) for offset, magic in DISKS)


def is_encrypted(head: bytes) -> bool:
    """Return whether a disk is encrypted as a whole, by LUKS.  Nothing boots from such a disk."""
    return head.startswith(_LUKS)


def refusal(head: bytes) -> ImportFailed | None:
    """Return the error if an image is refused for its first bytes; else None.

    :param head: at least the image's first 64 KiB, or all of a shorter image.
    """
    for table in (UNREAD, OTHERS):
        for (offset, magic), name in table.items():
            if head.startswith(magic, offset) and (
                len(magic) >= _CERTAIN
                or GZIP.match(head)
                or BZIP2.match(head)
                or not tells_a_disk(head)
            ):
                return _refused(name, read=table is not UNREAD)
    if is_tar(head):
        return _refused("a tar archive", read=False)
    if _is_lzma(head):
        return _refused("lzma", read=False)
    if _is_zlib(head) and not tells_a_disk(head):
        return _refused("zlib", read=False)
    if _is_program(head):
        return _refused("a program (PE)", read=True)
    kind = kind_by_structure(head)
    return _refused(kind, read=True) if kind is not None and not tells_a_disk(head) else None


def refusal_of_end(last: bytes) -> ImportFailed | None:
    """Return the error if an image is refused for its last 512 bytes; else None."""
    for (offset, magic), name in ENDS.items():
        if last[len(last) + offset :].startswith(magic) and len(last) + offset >= 0:
            return _refused(name, read=False)
    return None


def unread_format(head: bytes) -> str | None:
    """Return the name of the unsupported compression, archive or disk format that bytes begin.

    :param head: at least 64 bytes, or all that is left of a file.
    """
    if is_encrypted(head):
        return "luks"
    # A shorter signature may occur in other bytes by chance.
    for (offset, magic), name in UNREAD.items():
        if head.startswith(magic, offset) and len(magic) >= _CERTAIN:
            return name.partition(" (")[0]
    return None


def is_tar(head: bytes) -> bool:
    """Return whether a file is a tar archive, by the checksum of the first header.

    Archives from before POSIX have no signature (pax, "ustar Interchange Format": chksum).
    """
    header = head[:_BLOCK]
    if len(header) < _BLOCK or not header[0]:
        return False
    stated = header[148:156].strip(b" \0")
    if not stated or not set(stated) <= set(b"01234567"):
        return False
    counted = sum(header) - sum(header[148:156]) + 8 * ord(" ")
    signed = counted - 256 * sum(each > 127 for each in header[:148] + header[156:])
    return int(stated, 8) in (counted, signed)


def _refused(name: str, *, read: bool) -> ImportFailed:
    if read:
        return NotADisk(f"The image is {name}, not a disk.")
    return UnsupportedFormat(f"The image is {name}, a format that bootvol does not read.")


def _is_lzma(head: bytes) -> bool:
    """Return whether a file has an LZMA_Alone header (lzma-file-format.txt)."""
    if len(head) < 13 or head[0] != 0x5D:
        return False
    dictionary, size = int.from_bytes(head[1:5], "little"), int.from_bytes(head[5:13], "little")
    # The same rule as in xz(1): other tools write no other sizes.
    power = dictionary & (dictionary - 1) == 0 or dictionary % 3 == 0
    return dictionary >= 4096 and power and (size == 2**64 - 1 or size < 2**38)


def _is_zlib(head: bytes) -> bool:
    """Return whether a file is a zlib stream (RFC 1950, 2.2), as its first bytes unpack."""
    if head[:1] != b"\x78" or len(head) < 2 or int.from_bytes(head[:2], "big") % 31:
        return False
    try:
        return bool(zlib.decompressobj().decompress(head, _BLOCK))
    except zlib.error:
        return False


def _is_program(head: bytes) -> bool:
    """Return whether a file is a PE program (Microsoft PE format, "MS-DOS stub")."""
    if not head.startswith(b"MZ") or len(head) < 64:
        return False
    place = int.from_bytes(head[60:64], "little")
    return bytes(head[place : place + 4]) == b"PE\0\0"
