"""Copies of guests' data: a test for the suite of any backend."""

from __future__ import annotations

import gzip
import io
import random
import struct
import tarfile
from itertools import pairwise
from typing import Any, ClassVar, Final, cast

from pytest_twisted import ensureDeferred

from bootvol.imaging import signatures
from bootvol.imaging.buffers import Memory
from bootvol.imaging.target import VolumeTarget
from bootvol.interfaces import IBlockBackend, PluginContext
from bootvol.testing.backends import SIZE, noise, read, write
from bootvol.worker.clone_or_copy import Origin, clone_or_copy
from bootvol.worker.copier import Copier, ImportLimits
from tests.daemons import reactor

#: Bytes of arbitrary data at a volume's beginning and end. Also the size of the copies' buffers.
EDGE: Final = 128 * 1024
_NAMES: Final = ("volume-1", "snapshot-1", "volume-2")


def _placed(magic: bytes, offset: int = 0, filled: bytes = b"") -> bytes:
    """Return an edge with some bytes at an offset, surrounded by zeros or a filling."""
    edge = bytearray(filled.ljust(EDGE, b"\0"))
    assert offset + len(magic) <= EDGE
    edge[offset : offset + len(magic)] = magic
    return bytes(edge)


def _archive() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("etc/passwd"))
    return packed.getvalue()


def _vhd_footer() -> bytes:
    """Return the footer of a vhd image of a fixed size, with its checksum."""
    footer = bytearray(512)
    footer[:8], footer[60:64] = b"conectix", struct.pack(">I", 2)
    footer[64:68] = struct.pack(">I", ~sum(footer) & 0xFFFFFFFF)
    return bytes(footer)


#: Beginnings that look like an image, an encrypted disk, an archive, a document and so on: all
#: formats that a first byte reveals, and whole headers that refer to other files.
HEADS: Final = [
    *(_placed(magic, offset, noise(EDGE)) for offset, magic in signatures.UNREAD),
    *(_placed(magic, offset, noise(EDGE)) for offset, magic in signatures.OTHERS),
    *(_placed(magic, offset) for offset, magic in signatures.DISKS),
    _placed(b"LUKS\xba\xbe\0\2"),
    _placed(b"QFI\xfb" + struct.pack(">IQI", 3, 512, 11) + b"\0" * 488 + b"/etc/shadow"),
    _placed(b"QFI\xfb\0\0\0\3" + b"\0" * 502 + b"\x55\xaa"),
    _placed(b"KDMV" + struct.pack("<I", 1)),
    _placed(b'# Disk DescriptorFile\nversion=1\nRW 8 FLAT "/etc/shadow" 0\n'),
    _placed(b"vhdxfile"),
    _placed(b"\x7f\x10\xda\xbe", 64),
    _placed(_vhd_footer()),
    _placed(_archive()),
    _placed(gzip.compress(noise(1000))),
    _placed(b"\xfd7zXZ\0"),
    _placed(b"(\xb5/\xfd"),
    _placed(b"BZh9"),
    _placed(b'{"a": 1}\n'),
    _placed(b"<!DOCTYPE html><html>"),
    bytes(EDGE),
]
TAILS: Final = [bytes(EDGE), _placed(_vhd_footer(), EDGE - 512), _placed(b"EFI PART", EDGE - 512)]


class AnyBytes:
    """A test that runs with the suite of :class:`bootvol.testing.backends.BlockBackendContract`.

    :cvar examples: the number of volumes to copy, and to copy back; 0 takes all examples.
    :cvar size: size of each volume in bytes.
    """

    examples: ClassVar[int] = 5
    size: ClassVar[int] = SIZE

    @ensureDeferred
    async def test_whatever_a_guest_wrote_is_copied(
        self, backend: IBlockBackend, context: PluginContext
    ) -> None:
        """A volume's snapshot, and a volume made from the snapshot, equal the volume byte for byte.

        Break: `src/bootvol/worker/clone_or_copy.py`: `inspected=False` -> `inspected=True`
        """
        size = self.size
        limits = ImportLimits(size, 0, cast("Any", None))
        copier = Copier(limits, Memory(2, EDGE), context.threads, reactor)
        chance = random.Random(self.examples)
        edges = [
            *((head, chance.choice(TAILS)) for head in HEADS),
            *((chance.choice(HEADS), tail) for tail in TAILS),
            *((chance.randbytes(EDGE), chance.randbytes(EDGE)) for _ in range(5)),
        ]
        for head, tail in chance.sample(edges, self.examples) if self.examples else edges:
            written = head + bytes(size - 2 * EDGE) + tail
            await backend.allocate(_NAMES[0], size)
            await write(backend, _NAMES[0], 0, written)
            for one, other in pairwise(_NAMES):
                origin = Origin(backend, one, size)
                await clone_or_copy(copier, origin, VolumeTarget(backend, other, size))
                assert await read(backend, other, 0, size) == written, (head[:16], tail[-16:])
            for name in reversed(_NAMES):
                await backend.delete(name)
