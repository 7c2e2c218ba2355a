"""Finds truncated containers that QEMU's tools would accept, by their tables and their ends.

All functions block on the disk.
"""

from __future__ import annotations

import os
import struct
from typing import Final

from bootvol.devices import failures
from bootvol.errors import ContainerTruncated, ImageCorrupt, ImageRefersElsewhere

#: The begin of a vhd image's footer (Virtual Hard Disk Image Format Specification, "Hard Disk
#: Footer").
_VHD_FOOTER: Final = b"conectix"
_VHD_WHOLE, _VHD_DIFFERENCE = (2, 3), 4
#: Offsets of the disk's size, in the formats that state the size in bytes.  Arguments as for
#: :meth:`io.IOBase.seek`: qcow2 ("size" in its header), vhd ("Current Size" in its footer).
_SIZES: Final = {"qcow2": (24, os.SEEK_SET), "vhd": (48 - 512, os.SEEK_END)}
#: In the header of a qcow2 image: the logarithm of the cluster size; the number of entries in the
#: L1 table, and the table's offset.  In an entry: the offset of an L2 table, which fills a cluster
#: (qcow2 specification, "Header" and "Cluster mapping").
_QCOW2_CLUSTER: Final = struct.Struct(">20xI")
_QCOW2_TABLE: Final = struct.Struct(">36xIQ")
_QCOW2_ENTRY: Final = struct.Struct(">Q")
#: QEMU's limits (block/qcow2.h: MAX_CLUSTER_BITS, QCOW_MAX_L1_SIZE).
_QCOW2_LARGEST, _QCOW2_LONGEST = 21, 32 * 1024 * 1024
_QCOW2_PLACE: Final = 0x00FF_FFFF_FFFF_FE00
#: Every part of a vhdx image begins and ends on a multiple of this (MS-VHDX, section 2.1), in
#: bytes.
_VHDX_UNIT: Final = 1024 * 1024


def check_end(container: str, descriptor: int) -> None:
    """Check the end of a vhd or vhdx image: `qemu-img` does not notice if the end is missing."""
    with failures("Reading the image failed"):
        size = os.fstat(descriptor).st_size
        tail = os.pread(descriptor, 512, max(0, size - 512))
    if container == "vhd":
        if not tail.startswith(_VHD_FOOTER):
            raise ContainerTruncated("The vhd image lacks its last bytes, the footer.")
        _check_kind(int.from_bytes(tail[60:64], "big"))
    if container == "vhdx" and size % _VHDX_UNIT:
        raise ContainerTruncated("The vhdx image ends at an impossible position.")


def check_tables(container: str, descriptor: int) -> None:
    """Check that the tables of a qcow2 image lie inside the image.

    QEMU reads the missing part of a table as zeros, and then the disk as zeros.  `qemu-img check`
    does not notice if less than a cluster is missing.

    :raises ContainerTruncated: if a table continues beyond the image's end.
    :raises ImageCorrupt: if QEMU would not accept the table.
    """
    if container != "qcow2":
        return
    with failures("Reading the image failed"):
        size = os.fstat(descriptor).st_size
        header = os.pread(descriptor, _QCOW2_TABLE.size, 0)
        (bits,) = _QCOW2_CLUSTER.unpack_from(header)
        count, start = _QCOW2_TABLE.unpack(header)
        length = count * _QCOW2_ENTRY.size
        if bits > _QCOW2_LARGEST or length > _QCOW2_LONGEST:
            raise ImageCorrupt("The qcow2 image has an impossible table.")
        table = os.pread(descriptor, length, start)
    if len(table) < length:
        raise ContainerTruncated("The L1 table of the qcow2 image extends beyond the image's end.")
    furthest = max((each & _QCOW2_PLACE for (each,) in _QCOW2_ENTRY.iter_unpack(table)), default=0)
    if furthest and furthest + (1 << bits) > size:
        raise ContainerTruncated("An L2 table of the qcow2 image extends beyond the image's end.")


def stated_size(container: str, descriptor: int) -> int | None:
    """Return the stated size of the disk in bytes; None if QEMU accepts no other size."""
    if container not in _SIZES:
        return None
    place, whence = _SIZES[container]
    with failures("Reading the image failed"):
        end = os.fstat(descriptor).st_size if whence == os.SEEK_END else 0
        return int.from_bytes(os.pread(descriptor, 8, end + place), "big")


def _check_kind(kind: int) -> None:
    """Check that a vhd is a whole disk, by the disk type in its footer.  QEMU does not check."""
    if kind == _VHD_DIFFERENCE:
        raise ImageRefersElsewhere("The vhd image is only the difference to another one.")
    if kind not in _VHD_WHOLE:
        raise ImageCorrupt(f"The vhd image is of an unknown kind, {kind}.")
