"""Signatures in the first bytes of an image: of unsupported formats, and of disks.

Sources: F is the database of file(1) (``magic/Magdir`` in its source), B is libblkid of util-linux
(``libblkid/src``), Q is QEMU's source (``block/``).  Other entries name their specification.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from bootvol.errors import ImportFailed, NotADisk, UnsupportedFormat

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

#: Signatures of archives, of compressed files, and of disks in unsupported formats, by offset.
_UNREAD: Final[Mapping[tuple[int, bytes], str]] = {
    # Compressed files.
    (0, b"\x1f\x8b"): "gzip (compressed twice, or damaged)",  # RFC 1952
    (0, b"\xfd7zXZ\0"): "xz (compressed twice)",  # The .xz File Format
    (0, b"\x28\xb5\x2f\xfd"): "zstd (compressed twice)",  # RFC 8878
    (0, b"BZh"): "bzip2 (compressed twice, or damaged)",  # F compress
    (0, b"\x04\x22\x4d\x18"): "lz4",  # LZ4 Frame Format Description
    (0, b"\x02\x21\x4c\x18"): "lz4 (legacy)",  # LZ4 Frame Format Description
    (0, b"LZIP"): "lzip",  # Internet-Draft draft-diaz-lzip
    (0, b"\x89LZO\0\r\n\x1a\n"): "lzop",  # F compress
    (0, b"\x1f\x9d"): "compress (.Z)",  # F compress
    (0, b"\x1f\xa0"): "compress (SCO LZH)",  # F compress
    (0, b"\x1f\x1e"): "pack (.z)",  # F compress
    (0, b"LRZI"): "lrzip",  # F compress
    (0, b"RZIP"): "rzip",  # F compress
    (0, b"\xff\x06\0\0sNaPpY"): "snappy",  # Snappy framing format
    **{(0, bytes([0x22 + n]) + b"\xb5\x2f\xfd"): "zstd of before 1.0" for n in range(6)},  # F
    # Archives.
    (0, b"PK\x03\x04"): "a zip archive",  # APPNOTE.TXT, 4.3.7
    (0, b"PK\x05\x06"): "an empty zip archive",  # APPNOTE.TXT, 4.3.16
    (0, b"PK\x07\x08"): "a zip archive in parts",  # APPNOTE.TXT, 8.5.4
    (0, b"7z\xbc\xaf\x27\x1c"): "a 7z archive",  # 7zFormat.txt
    (0, b"Rar!\x1a\x07"): "a rar archive",  # RAR 5.0 archive format
    (0, b"070701"): "a cpio archive",  # cpio(5)
    (0, b"070702"): "a cpio archive",  # cpio(5)
    (0, b"070707"): "a cpio archive",  # cpio(5)
    (0, b"\xc7\x71"): "a cpio archive",  # cpio(5), the old binary format
    (0, b"!<arch>\ndebian-binary"): "a Debian package",  # deb(5)
    (0, b"!<arch>\n"): "an ar archive",  # ar(5)
    (0, b"\xed\xab\xee\xdb"): "an rpm package",  # F rpm
    (0, b"MSCF\0\0\0\0"): "a cabinet archive",  # MS-CAB, CFHEADER
    (0, b"MSWIM\0\0\0"): "a wim archive",  # F windows
    (0, b"xar!"): "a xar archive",  # F xar
    (0, b"\x60\xea"): "an arj archive",  # F archive
    (2, b"-lh"): "an lha archive",  # F archive
    (0, b"zPQ"): "a zpaq archive",  # F zpaq
    # Disks, and parts of disks.
    (0, b"\x3a\xff\x26\xed"): "an Android sparse image",  # AOSP libsparse/sparse_format.h
    (0, b"ANDROID!"): "an Android boot image",  # AOSP bootimg.h
    (0, b"CrAU"): "an Android update",  # AOSP update_engine
    (0, b"QED\0"): "qed",  # Q qed.h
    (0, b"LUKS\xba\xbe"): "luks",  # LUKS1 and LUKS2 On-Disk Format
    (0, b"QFI\xfb\0\0\0\1"): "qcow of version 1",  # Q qcow.c
    (0, b"WithoutFreeSpace"): "a Parallels disk",  # Q parallels.c
    (0, b"WithouFreSpacExt"): "a Parallels disk",  # Q parallels.c
    (0, b"Bochs Virtual HD Image"): "a Bochs disk",  # Q bochs.c
    (0, b"COWD"): "a COWD disk of VMware ESX",  # Q vmdk.c
    (0, b"OOOM"): "a COW file of User Mode Linux",  # F uml
    (0, b"MOOO"): "a COW file of User Mode Linux",  # F uml
    (0, b"#!/bin/sh\n#V2.0 Format\n"): "cloop",  # Q cloop.c
    (0, b"VMA\0"): "a Proxmox backup (vma)",  # Proxmox, vma_spec.txt
    (0, b"rbd image v"): "an export of rbd",  # Ceph, rbd-export-diff.rst
    (0, b"rbd diff v"): "an export of rbd",  # Ceph, rbd-export-diff.rst
    (0, b"btrfs-stream\0"): "a stream of btrfs send",  # F btrfs
    (8, b"\xac\xcb\xba\xf5\2\0\0\0"): "a stream of zfs send",  # F dump
    (0, b"partclone-image"): "a partclone image",  # partclone, IMAGE_FORMATS.md
    (0, b"PaRtImAgE-VoLuMe"): "a partimage volume",  # F filesystems
    (0, b"EVF\x09\r\n\xff\0"): "an EnCase image",  # F filesystems
    (4, b"SignedImage "): "a Windows full flash update",  # FFU image format
    (0, b"CISO"): "a compact ISO",  # F console
}

#: Signatures of files that are no disk in any format, by offset.
_OTHERS: Final[Mapping[tuple[int, bytes], str]] = {
    (0, b"\x7fELF"): "a program or kernel (ELF)",  # System V ABI, chapter 4
    (514, b"HdrS"): "a Linux kernel",  # Documentation/arch/x86/boot.rst
    (56, b"ARM\x64"): "a Linux kernel",  # Documentation/arch/arm64/booting.rst
    (0, b"\x27\x05\x19\x56"): "a U-Boot image",  # U-Boot include/image.h
    (0, b"\xd0\x0d\xfe\xed"): "a device tree or FIT image",  # Devicetree Specification, 5.2
    (0, b"\xfe\xed\xfa\xce"): "a program (Mach-O)",  # F mach
    (0, b"\xfe\xed\xfa\xcf"): "a program (Mach-O)",  # F mach
    (0, b"\xcf\xfa\xed\xfe"): "a program (Mach-O)",  # F mach
    (0, b"\xca\xfe\xba\xbe"): "a program (Mach-O or Java)",  # F cafebabe
    (0, b"%PDF-"): "a PDF document",  # ISO 32000
    (0, b"%!PS"): "a PostScript document",  # F printer
    (0, b"{\\rtf"): "an RTF document",  # F rtf
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"): "an Office document",  # MS-CFB, 2.2
    (0, b"\x89PNG\r\n\x1a\n"): "a picture (PNG)",  # RFC 2083
    (0, b"\xff\xd8\xff"): "a picture (JPEG)",  # F jpeg
    (0, b"GIF87a"): "a picture (GIF)",  # GIF specification
    (0, b"GIF89a"): "a picture (GIF)",  # GIF specification
    (0, b"II*\0"): "a picture (TIFF)",  # TIFF 6.0
    (0, b"MM\0*"): "a picture (TIFF)",  # TIFF 6.0
    (0, b"RIFF"): "a sound, film or picture (RIFF)",  # F riff
    (0, b"OggS"): "a sound or film (Ogg)",  # RFC 3533
    (0, b"fLaC"): "a sound (FLAC)",  # RFC 9639
    (0, b"ID3"): "a sound (MP3)",  # F animation
    (0, b"MThd"): "a sound (MIDI)",  # F audio
    (4, b"ftyp"): "a film (MP4)",  # ISO 14496-12
    (0, b"\x1a\x45\xdf\xa3"): "a film (Matroska)",  # RFC 8794
    (0, b"SQLite format 3\0"): "a database (SQLite)",  # SQLite, Database File Format
    (0, b"\xd4\xc3\xb2\xa1"): "a packet capture",  # F sniffer
    (0, b"d8:announce"): "a torrent file",  # BEP 3
}

#: Signatures of disks, of file systems and of parts of them on a whole disk, by offset.
_DISKS: Final = frozenset(
    {
        (510, b"\x55\xaa"),  # boot sector, master boot record, FAT, NTFS: UEFI 5.2.1
        (512, b"EFI PART"),  # GPT: UEFI 5.3.2
        (4096, b"EFI PART"),  # the same, sectors of 4096 bytes
        (512, b"PM\0\0"),  # Apple partition map: B partitions/mac.c
        (0, b"RDSK"),  # Amiga: F amigaos
        (508, b"\xda\xbe"),  # Sun: B partitions/sun.h
        (0, b"\x0b\xe5\xa9\x41"),  # SGI: B partitions/sgi.h
        (512, b"\x57\x45\x56\x82"),  # BSD disklabel: B partitions/bsd.h
        (64, b"\x57\x45\x56\x82"),  # the same, of other systems
        (8192 + 4, b"\xe5\xd6\xd3\xf1"),  # DASD (VOL1 in EBCDIC): B partitions/dasd.c
        *((place, b"LABELONE") for place in range(0, 2048, 512)),  # LVM2: B superblocks/lvm.c
        (0, b"\xfc\x4e\x2b\xa9"),  # MD RAID 1.1: B superblocks/linux_raid.c
        (4096, b"\xfc\x4e\x2b\xa9"),  # MD RAID 1.2
        (32769, b"CD001"),  # ISO 9660: ECMA-119
        (32769, b"BEA01"),  # UDF: ECMA-167
        (32769, b"NSR0"),  # UDF
        (1080, b"\x53\xef"),  # ext2, ext3, ext4: B superblocks/ext.c, as all that follow
        (0, b"XFSB"),
        (65600, b"_BHRfS_M"),  # btrfs
        (1024, b"\x10\x20\xf5\xf2"),  # f2fs
        (1024, b"\xe2\xe1\xf5\xe0"),  # erofs
        (0, b"hsqs"),  # squashfs
        (0, b"sqsh"),
        (0, b"\x45\x3d\xcd\x28"),  # cramfs
        (0, b"-rom1fs-"),
        (32768, b"JFS1"),
        (65588, b"ReIsEr"),
        (8244, b"ReIsEr"),
        (1030, b"\x34\x34"),  # nilfs2
        (1024, b"H+"),  # HFS+
        (1024, b"HX"),
        (1024, b"BD"),
        (32, b"NXSB"),  # APFS
        (9564, b"\x54\x19\x01\x00"),  # UFS1
        (66908, b"\x19\x01\x54\x19"),  # UFS2
        (4120, b"\xc6\x85\x73\xf6"),  # bcache and bcachefs
        (1040, b"\x7f\x13"),  # minix
        (1040, b"\x8f\x13"),
        (1040, b"\x68\x24"),
        (1040, b"\x78\x24"),
        (1048, b"\x5a\x4d"),
        (65536, b"\x01\x16\x19\x70"),  # GFS2
        *((1024 << n, b"OCFSV2") for n in range(1, 4)),
        (1024, b"\xf5\xfc\x01\xa5"),  # vxfs
        (4086, b"SWAPSPACE2"),
        (65526, b"SWAPSPACE2"),
    }
)


def tells_a_disk(head: bytes) -> bool:
    """Return whether the first bytes of an image have the signature of a disk.

    :param head: the image's first :data:`LOOK` bytes, or all of a shorter image.
    """
    return any(head.startswith(magic, offset) for offset, magic in _DISKS)


def refusal(head: bytes) -> ImportFailed | None:
    """Return the error if an image is refused for its first bytes; else None.

    :param head: at least the image's first 64 KiB, or all of a shorter image.
    """
    for table in (_UNREAD, _OTHERS):
        for (offset, magic), name in table.items():
            if head.startswith(magic, offset) and (
                len(magic) >= _CERTAIN
                or GZIP.match(head)
                or BZIP2.match(head)
                or not tells_a_disk(head)
            ):
                return _refused(name, read=table is not _UNREAD)
    if is_tar(head):
        return _refused("a tar archive", read=False)
    if _is_lzma(head):
        return _refused("lzma", read=False)
    if _is_program(head):
        return _refused("a program (PE)", read=True)
    return None


def is_footer_of_dmg(last: bytes) -> bool:
    """Return whether the last 512 bytes of an image belong to an Apple disk image (Q dmg.c)."""
    return last.startswith(b"koly\0\0\0\4\0\0\2\0")


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


def _is_program(head: bytes) -> bool:
    """Return whether a file is a PE program (Microsoft PE format, "MS-DOS stub")."""
    if not head.startswith(b"MZ") or len(head) < 64:
        return False
    place = int.from_bytes(head[60:64], "little")
    return bytes(head[place : place + 4]) == b"PE\0\0"
