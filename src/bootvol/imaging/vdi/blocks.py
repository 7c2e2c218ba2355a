"""The header and the map of a vdi image (QEMU's block/vdi.c, which names no specification)."""

from __future__ import annotations

import struct
from typing import Final

from bootvol.errors import ContainerTruncated
from bootvol.imaging.pieces.limits import Limits
from bootvol.imaging.pieces.maps import Map, Read, Table, no_packed, sort
from bootvol.imaging.pieces.numbers import numbers
from bootvol.imaging.pieces.pieces import MOST, Holes, Pieces, Unusual
from bootvol.threads import Threads

_SECTOR: Final = 512
_HEADER: Final = 512
#: From the signature on: signature, version, offset_bmap, offset_data, sector_size, disk_size,
#: block_size, block_extra, blocks_in_image; behind the id of the image the ids of its parents.
_FIELDS: Final = struct.Struct("<64xII268xII12xI4xQIII4x32x32s")
_SIGNATURE, _VERSION = 0xBEDA107F, 0x0001_0001
_BLOCK: Final = 1024 * 1024
_ENTRY: Final = 4
#: Entries from this one on stand for blocks of zeros: discarded, or never written.
_ZEROS: Final = 0xFFFF_FFFE


async def read_map(head: bytes, size: int, read: Read, limits: Limits, threads: Threads) -> Map:
    """Read the map of an image.

    :param head: the first bytes of the file.
    :param size: size of the file in bytes.
    :param read: reads a part of the file.
    :param limits: limits of the import.
    :raises bootvol.errors.ImageTooLarge: if the volume is smaller than the disk.
    :raises bootvol.errors.ContainerTruncated: if the map or a block lies beyond the file's end.
    :raises Unusual: if the image is of another kind than most, or if parts of the file overlap.
    """
    if len(head) < _HEADER:
        raise ContainerTruncated("The vdi image has no complete header.")
    signature, version, at, start, sector, disk_size, *blocks, parents = _FIELDS.unpack_from(head)
    block, extra, count = blocks
    usual = (
        (signature, version, sector, block, extra) == (_SIGNATURE, _VERSION, _SECTOR, _BLOCK, 0),
        not any(parents),
        not any(each % _SECTOR for each in (at, start, disk_size)),
        -(-disk_size // _BLOCK) <= count <= MOST,
    )
    if not all(usual):
        raise Unusual
    limits.check(disk_size, _BLOCK, _HEADER)
    length = -(-disk_size // _BLOCK) * _ENTRY
    if at + length > size:
        raise ContainerTruncated("The map of the vdi image extends beyond the image's end.")
    table = await read(at, length)
    pieces, holes = await threads.run(_take, table, start, size, disk_size)
    await threads.run(sort, pieces, [(0, _HEADER), (at, length)])
    tables = Table.of(0, head[:_HEADER]), Table.of(at, table)
    return Map(size, disk_size, _BLOCK, pieces, holes, tables, no_packed)


def _take(table: bytes, start: int, size: int, disk_size: int) -> tuple[Pieces, Holes]:
    """Return the pieces and holes in a map.  Blocks.

    :param start: offset of the first block in the file.
    """
    pieces, holes = Pieces(), Holes()
    for number, entry in enumerate(numbers(table, "I", "little")):
        disk = number * _BLOCK
        length = min(_BLOCK, disk_size - disk)
        place = start + entry * _BLOCK
        if entry >= _ZEROS:
            holes.add(disk, length)
        elif place + length > size:
            raise ContainerTruncated(
                f"The image has {size} bytes, but refers to parts beyond its end."
            )
        else:
            pieces.add(place, length, disk, packed=False)
    return pieces, holes
