"""Signatures of unsupported formats, of other files, and of disks.

Sources: F is the database of file(1) (``magic/Magdir`` in its source), B is libblkid of util-linux
(``libblkid/src``), Q is QEMU's source (``block/``).  Other entries name their specification.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

#: Signatures of archives, of compressed files, and of disks in unsupported formats, by offset.
UNREAD: Final[Mapping[tuple[int, bytes], str]] = {
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
    (0, b"BZ3v1"): "bzip3",  # F compress
    (0, b"qpress10"): "qpress",  # F compress
    (0, b"SZDD\x88\xf0\x27\x33"): "compress of Microsoft",  # F msdos
    (0, b"mozLz40\0"): "lz4 of Mozilla",  # F mozilla
    (0, b"\0\xe9UCL\xff\x01\x1a"): "ucl",  # F compress
    (0, b"bvx2"): "lzfse",  # F compress
    (0, b"\0ZCK1"): "zchunk",  # zchunk_format.txt
    **{(0, bytes([0x22 + n]) + b"\xb5\x2f\xfd"): "zstd of before 1.0" for n in range(6)},  # F
    (0, b"KWAJ\x88\xf0\x27\xd1"): "compress of Microsoft",  # F msdos
    (0, b"pbzx"): "pbzx of Apple",  # F apple
    # Encrypted files.
    (0, b"AEA1"): "an encrypted Apple archive",  # Apple, libAppleArchive
    (0, b"Salted__"): "a file encrypted by openssl",  # F ssl
    (0, b"age-encryption.org/v1\n"): "a file encrypted by age",  # C2SP, age.md
    **{(0, b"\x8c\x0d\x04%c\3" % n): "a file encrypted by gpg" for n in range(1, 11)},  # F pgp
    **{(0, b"\x85%c\x0c\3" % n): "a file encrypted by gpg" for n in range(1, 5)},  # F pgp
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
    (0, b"!<thin>\n"): "an ar archive",  # F archive
    (0, b"\xed\xab\xee\xdb"): "an rpm package",  # F rpm
    (0, b"MSCF\0\0\0\0"): "a cabinet archive",  # MS-CAB, CFHEADER
    (0, b"ISc("): "a cabinet of InstallShield",  # F windows
    (0, b"MSWIM\0\0\0"): "a wim archive",  # F windows
    (0, b"WLPWM\0\0\0"): "a wim archive",  # F windows
    (0, b"xar!"): "a xar archive",  # F xar
    (0, b"\x60\xea"): "an arj archive",  # F archive
    (2, b"-lh"): "an lha archive",  # F archive
    (0, b"zPQ"): "a zpaq archive",  # F zpaq
    (7, b"**ACE**"): "an ace archive",  # F archive
    (20, b"\xdc\xa7\xc4\xfd"): "a zoo archive",  # F archive
    (0, b"PAR2\0PKT"): "a par2 archive",  # F archive
    (0, b"SIT!"): "a StuffIt archive",  # F apple
    (0, b"StuffIt (c)"): "a StuffIt archive",  # F apple
    (0, b"ALZ\1"): "an ALZip archive",  # F archive
    (0, b"EGGA"): "an ALZip archive",  # F archive
    (0, b"Cr24"): "a Chrome extension",  # F archive
    (0, b"<bigaf>\n"): "an ar archive",  # F archive
    **{(0, magic): "an Apple archive" for magic in (b"YAA1", b"AA01")},  # Apple, libAppleArchive
    # Backups.
    (0, b"ANDROID BACKUP\n"): "an Android backup",  # F android
    (0, b"\xce\x24\xb9\xa2\x20\0\0\0"): "an Acronis backup",  # F archive
    (0, b"\xfe\xef\x01"): "a Ghost image",  # F filesystems
    (0, b"FsA0"): "an fsarchiver archive",  # fsarchiver, fsarchiver.h
    (0, b"\0ntfsclone-image"): "an ntfsclone image",  # F filesystems
    **{(24, magic + b"\xea\0\0"): "a dump" for magic in (b"\x6b", b"\x6c")},  # F dump
    (24, b"\x19\x01\x54\x19"): "a dump",  # F dump
    (0, b"xFSdump0"): "an xfsdump",  # F xfs
    (0, b"XFSM"): "an xfs metadump",  # xfs_metadump(8)
    (0, b"XMD2"): "an xfs metadump",  # xfs_metadump(8)
    # Disks, and parts of disks.
    (0, b"\x3a\xff\x26\xed"): "an Android sparse image",  # AOSP libsparse/sparse_format.h
    (0, b"ANDROID!"): "an Android boot image",  # AOSP bootimg.h
    (0, b"CrAU"): "an Android update",  # AOSP update_engine
    (0, b"QED\0"): "qed",  # Q qed.h
    (0, b"QFI\xfb\0\0\0\1"): "qcow of version 1",  # Q qcow.c
    (0, b"WithoutFreeSpace"): "a Parallels disk",  # Q parallels.c
    (0, b"WithouFreSpacExt"): "a Parallels disk",  # Q parallels.c
    (0, b"Bochs Virtual HD Image"): "a Bochs disk",  # Q bochs.c
    (0, b"COWD"): "a COWD disk of VMware ESX",  # Q vmdk.c
    (0, b"\xbe\xba\xfe\xca\0\0\0\0"): "an SESparse disk of VMware ESX",  # Q vmdk.c
    (0, b"OOOM"): "a COW file of User Mode Linux",  # F uml
    (0, b"MOOO"): "a COW file of User Mode Linux",  # F uml
    (0, b"#!/bin/sh\n#V2.0 Format\n"): "cloop",  # Q cloop.c
    (0, b"VMA\0"): "a Proxmox backup (vma)",  # Proxmox, vma_spec.txt
    (0, b"rbd image v"): "an export of rbd",  # Ceph, rbd-export-diff.rst
    (0, b"rbd diff v"): "an export of rbd",  # Ceph, rbd-export-diff.rst
    (0, b"btrfs-stream\0"): "a stream of btrfs send",  # F btrfs
    (8, b"\xac\xcb\xba\xf5\2\0\0\0"): "a stream of zfs send",  # F dump
    (8, b"\0\0\0\2\xf5\xba\xcb\xac"): "a stream of zfs send",  # F dump
    (0, b"partclone-image"): "a partclone image",  # partclone, IMAGE_FORMATS.md
    (0, b"PaRtImAgE-VoLuMe"): "a partimage volume",  # F filesystems
    (0, b"EVF\x09\r\n\xff\0"): "an EnCase image",  # F filesystems
    (0, b"EVF2\r\n\x81\0"): "an EnCase image",  # libewf, EWF2 format
    (0, b"LVF\x09\r\n\xff\0"): "an EnCase image",  # libewf, EWF format
    (0, b"AFF10\r\n\0"): "an AFF image",  # AFFLIBv3, afflib_i.h
    (4, b"SignedImage "): "a Windows full flash update",  # FFU image format
    (0, b"CISO"): "a compact ISO",  # F console
    (0, b"ZISO"): "a compact ISO",  # ziso of OPL
    (0, b"IsZ!"): "a compressed ISO (isz)",  # F filesystems
    (0, b"DAA\0\0\0"): "a compressed ISO (daa)",  # F filesystems
    (0, b"\0" + 10 * b"\xff" + b"\0"): "a CD in sectors of 2352 bytes",  # ECMA-130, 14.1
    (0, b"MEDIA DESCRIPTOR"): "a description of a CD (mds)",  # F filesystems
    (0, b"MComprHD"): "a CHD disk",  # F mame
    **{(0, b"CKD_%c370" % kind): "a CKD disk of Hercules" for kind in b"PCS"},  # F filesystems
    (0, b"encrcdsa"): "an encrypted Apple disk image",  # Apple, diskimages2
    (0, b"sprs"): "a sparse Apple disk image",  # Apple, diskimages2
    (0, b"shdw"): "a sparse Apple disk image",  # Apple, ASIF
    (0, b"VNDRBOOT"): "an Android boot image",  # AOSP bootimg.h
    (0, b"AVB0"): "a verification of Android",  # AOSP avb_vbmeta_image.h
    (0, b"UBI#"): "an image of flash memory (ubi)",  # F filesystems
    (0, b"\x31\x18\x10\x06"): "an image of flash memory (ubifs)",  # F filesystems
    (0, b"\x85\x19\x01\xe0"): "an image of flash memory (jffs2)",  # F filesystems
    (0, b"\x85\x19\x03\x20"): "an image of flash memory (jffs2)",  # F filesystems
    (0, b"HDR0"): "firmware (trx)",  # Linux, parser_trx.c
    (0, b"UF2\nWQ\x5d\x9e"): "firmware (uf2)",  # F uf2
    (40, b"_FVH"): "firmware (UEFI)",  # UEFI PI, EFI_FIRMWARE_VOLUME_HEADER
    # Memory of machines.
    (0, b"LibvirtQemud"): "a suspended machine of libvirt",  # F virtual
    (0, b"QEVM"): "a suspended machine of QEMU",  # F virtual
    **{(0, b"%c\xbe\xd2\xbe" % n): "a snapshot of VMware" for n in range(0xD0, 0xD4)},  # F virtual
    (0, b"KDUMP   "): "a dump of memory",  # F linux
    (0, b"PAGEDU"): "a dump of memory",  # F windows
    (0, b"MDMP\x93\xa7"): "a dump of memory",  # F dump
}

#: Signatures of files that are no disk in any format, by offset.
OTHERS: Final[Mapping[tuple[int, bytes], str]] = {
    (0, b"\x7fELF"): "a program or kernel (ELF)",  # System V ABI, chapter 4
    (514, b"HdrS"): "a Linux kernel",  # Documentation/arch/x86/boot.rst
    (56, b"ARM\x64"): "a Linux kernel",  # Documentation/arch/arm64/booting.rst
    (56, b"RSC\x05"): "a Linux kernel",  # Documentation/arch/riscv/boot-image-header.rst
    (0, b"\x27\x05\x19\x56"): "a U-Boot image",  # U-Boot include/image.h
    (0, b"\xd0\x0d\xfe\xed"): "a device tree or FIT image",  # Devicetree Specification, 5.2
    (0, b"\xfe\xed\xfa\xce"): "a program (Mach-O)",  # F mach
    (0, b"\xfe\xed\xfa\xcf"): "a program (Mach-O)",  # F mach
    (0, b"\xcf\xfa\xed\xfe"): "a program (Mach-O)",  # F mach
    (0, b"\xce\xfa\xed\xfe"): "a program (Mach-O)",  # F mach
    (0, b"\xca\xfe\xba\xbe"): "a program (Mach-O or Java)",  # F cafebabe
    (0, b"#!/"): "a script",  # execve(2)
    (0, b"# v2 git bundle\n"): "a git bundle",  # gitformat-bundle(5)
    (0, b"# v3 git bundle\n"): "a git bundle",  # gitformat-bundle(5)
    (0, b"PACK\0\0\0\2"): "a git pack",  # gitformat-pack(5)
    (0, b"\0asm"): "a program (WebAssembly)",  # WebAssembly Core Specification, 5.5.16
    (0, b"dex\n0"): "a program (Dalvik)",  # AOSP, Dalvik executable format
    (0, b"BC\xc0\xde"): "a program (LLVM)",  # LLVM Bitcode File Format
    (0, b"\x1bLua"): "a program (Lua)",  # F lua
    (0, b"DIRC"): "a git index",  # gitformat-index(5)
    # Files that help to fetch images.
    (0, b"JigsawDownload template "): "a jigdo template",  # jigdo-file(1)
    (0, b"zsync: "): "a zsync control file",  # zsyncmake(1)
    (0, b"BSDIFF40"): "a difference of files",  # F bsdiff
    (0, b"\xd6\xc3\xc4"): "a difference of files",  # RFC 3284
    (0, b"rs\x01\x36"): "a difference of files (rdiff)",  # F rsync
    (0, b"rs\x02\x36"): "a difference of files (rdiff)",  # F rsync
    **{
        (0, b"d" + key): "a torrent file"  # BEP 3
        for key in (b"8:announce", b"13:announce-list", b"7:comment", b"10:created by", b"4:info")
    },
    **{(0, b"\x89%c\x33\4\0" % n): "a signature" for n in (1, 2)},  # F pgp
    (0, b"%PDF-"): "a PDF document",  # ISO 32000
    (0, b"%!PS"): "a PostScript document",  # F printer
    (0, b"{\\rtf"): "an RTF document",  # F rtf
    (0, b"AT&TFORM"): "a document (DjVu)",  # F images
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"): "an Office document",  # MS-CFB, 2.2
    (0, b"\xc5\xd0\xd3\xc6"): "a PostScript document",  # F printer
    (0, b"ITSF\3\0\0\0"): "a document (CHM)",  # F msdos
    (60, b"BOOKMOBI"): "a book (Mobipocket)",  # F palm
    (0, b"\xf7\x02\x01\x83\x92\xc0\x1c\x3b"): "a document (DVI)",  # F tex
    (0, b"\x4c\0\0\0\x01\x14\x02\0"): "a link of Windows",  # MS-SHLLINK, 2.1
    (0, b"!BDN"): "a mailbox (Outlook)",  # MS-PST, 2.2.2.6
    (0, b"\x89PNG\r\n\x1a\n"): "a picture (PNG)",  # RFC 2083
    (0, b"\xff\xd8\xff"): "a picture (JPEG)",  # F jpeg
    (0, b"GIF87a"): "a picture (GIF)",  # GIF specification
    (0, b"GIF89a"): "a picture (GIF)",  # GIF specification
    (0, b"II*\0"): "a picture (TIFF)",  # TIFF 6.0
    (0, b"MM\0*"): "a picture (TIFF)",  # TIFF 6.0
    (0, b"8BPS"): "a picture (Photoshop)",  # F images
    (0, b"\0\0\0\x0cjP  "): "a picture (JPEG 2000)",  # F jpeg
    (0, b"\0\0\0\x0cJXL "): "a picture (JPEG XL)",  # F jpeg
    (0, b"\xff\x4f\xff\x51"): "a picture (JPEG 2000)",  # F jpeg
    (0, b"II\xbc\x01"): "a picture (JPEG XR)",  # F jpeg
    (0, b"gimp xcf "): "a picture (GIMP)",  # F gimp
    (0, b"\x76\x2f\x31\x01"): "a picture (OpenEXR)",  # F images
    (0, b"DDS \x7c\0\0\0"): "a picture (DDS)",  # F images
    (0, b"icns"): "a picture (icns)",  # F images
    (0, b"qoif"): "a picture (QOI)",  # F images
    (0, b"SIMPLE  ="): "a picture (FITS)",  # F images
    (0, b"SDPX"): "a picture (DPX)",  # F images
    (0, b"XPDS"): "a picture (DPX)",  # F images
    (0, b"\xd7\xcd\xc6\x9a"): "a picture (WMF)",  # F images
    (40, b" EMF\0\0\1\0"): "a picture (EMF)",  # MS-EMF, 2.2.9
    (0, b"BLENDER"): "a scene (Blender)",  # F blender
    (0, b"FORM"): "a sound or picture (IFF)",  # F iff
    (0, b".snd"): "a sound (AU)",  # F audio
    (0, b"#!AMR"): "a sound (AMR)",  # RFC 4867
    (0, b"caff\0\1"): "a sound (CAF)",  # F audio
    (0, b"wvpk"): "a sound (WavPack)",  # F audio
    (0, b"RIFF"): "a sound, film or picture (RIFF)",  # F riff
    (0, b"OggS"): "a sound or film (Ogg)",  # RFC 3533
    (0, b"fLaC"): "a sound (FLAC)",  # RFC 9639
    (0, b"ID3"): "a sound (MP3)",  # F animation
    (0, b"MThd"): "a sound (MIDI)",  # F audio
    (4, b"ftyp"): "a film (MP4)",  # ISO 14496-12
    (4, b"moov"): "a film (QuickTime)",  # F animation
    (4, b"mdat"): "a film (QuickTime)",  # F animation
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"): "a film or sound (ASF)",  # F animation
    (0, b"FLV\1"): "a film (Flash)",  # F flash
    (0, b"\0\0\1\xba"): "a film (MPEG)",  # F animation
    (0, b"\0\0\1\xb3"): "a film (MPEG)",  # F animation
    (0, b"\x1a\x45\xdf\xa3"): "a film (Matroska)",  # RFC 8794
    (0, b"SQLite format 3\0"): "a database (SQLite)",  # SQLite, Database File Format
    (0, b"\x37\x7f\x06\x82"): "a log (SQLite)",  # SQLite, Database File Format, 4.1
    (0, b"\x37\x7f\x06\x83"): "a log (SQLite)",  # the same
    (4, b"Standard Jet DB"): "a database (Access)",  # F database
    (4, b"Standard ACE DB"): "a database (Access)",  # F database
    (0, b"PGDMP"): "a database (PostgreSQL)",  # F sql
    (0, b"LPKSHHRH"): "a log (systemd)",  # systemd, Journal File Format
    (0, b"ElfFile\0"): "a log (Windows)",  # F windows
    (0, b"regf"): "a registry of Windows",  # F windows
    (0, b"\xfe\xed\xfe\xed"): "a keystore (Java)",  # F java
    (0, b"\xce\xce\xce\xce"): "a keystore (Java)",  # F java
    (0, b"\x03\xd9\xa2\x9a"): "a keystore (KeePass)",  # F keepass
    (0, b"JAVA PROFILE 1.0."): "a dump of memory (Java)",  # F java
    **{(0, b"CDF%c" % n): "scientific data (NetCDF)" for n in (1, 2, 5)},  # F hdf
    (0, b"MATLAB 5.0"): "scientific data (MATLAB)",  # F mathematica
    (0, b"GRIB"): "scientific data (GRIB)",  # F grib
    (0, b"GGUF"): "a model (GGUF)",  # ggml, gguf.md
    (0, b"Obj\1"): "a table (Avro)",  # Apache Avro Specification
    (0, b"ARROW1\0\0"): "a table (Arrow)",  # Arrow Columnar Format
    **{(0, b"RDX%c\n" % n): "data of R" for n in b"23"},  # F statistics
    (0, b"\x89HDF\r\n\x1a\n"): "scientific data (HDF5)",  # F hdf
    (0, b"\x93NUMPY"): "scientific data (NumPy)",  # F numpy
    (0, b"PAR1"): "a table (Parquet)",  # F apache
    (0, b"bplist00"): "a property list",  # F apple
    **{(0, magic): "a font" for magic in (b"OTTO", b"wOFF", b"wOF2", b"ttcf")},  # F fonts
    **{(0, magic): "a font" for magic in (b"\1fcp", b"\x72\xb5\x4a\x86")},  # F fonts
    **{(0, magic): "translations" for magic in (b"\xde\x12\4\x95", b"\x95\4\x12\xde")},  # F gnu
    (0, b"snoop\0\0\0"): "a packet capture",  # RFC 1761
    (0, b"\xd4\xc3\xb2\xa1"): "a packet capture",  # F sniffer
    (0, b"\xa1\xb2\xc3\xd4"): "a packet capture",  # F sniffer
    (0, b"\x4d\x3c\xb2\xa1"): "a packet capture",  # F sniffer
    (0, b"\x0a\x0d\x0d\x0a"): "a packet capture",  # F sniffer
}

#: Signatures at the end of images in unsupported formats, by offset from the end.
ENDS: Final[Mapping[tuple[int, bytes], str]] = {
    (-512, b"koly\0\0\0\4\0\0\2\0"): "an Apple disk image (dmg)",  # Q dmg.c
    (-12, b"NER5"): "a Nero disc image (nrg)",  # F filesystems
    (-8, b"NERO"): "a Nero disc image (nrg)",  # F filesystems
}

#: Signatures of disks, of file systems and of parts of them on a whole disk, by offset.
DISKS: Final = frozenset(
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
        (32777, b"CDROM"),  # High Sierra: B superblocks/iso9660.c
        (3, b"ReFS\0\0\0\0"),  # B superblocks/refs.c
        (32, b"1SFB"),  # BeFS: B superblocks/befs.c
        (0, b"\x31\x30\x52\xc5MMA\xc8"),  # HAMMER: F filesystems
        (0, b"\x11\x20\x17\x052MAH"),  # HAMMER2: F filesystems
        (0, b"dmvdo001"),  # VDO: B superblocks/vdo.c
        (1080, b"\x53\xef"),  # ext2, ext3, ext4: B superblocks/ext.c, as all that follow
        (0, b"XFSB"),
        (65600, b"_BHRfS_M"),  # btrfs
        (1024, b"\x10\x20\xf5\xf2"),  # f2fs
        (1024, b"\xe2\xe1\xf5\xe0"),  # erofs
        (0, b"hsqs"),  # squashfs
        (0, b"sqsh"),
        (0, b"\x45\x3d\xcd\x28"),  # cramfs
        (0, b"\x28\xcd\x3d\x45"),
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
        (9564, b"\x00\x01\x19\x54"),
        (66908, b"\x19\x01\x54\x19"),  # UFS2
        (66908, b"\x19\x54\x01\x19"),
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
