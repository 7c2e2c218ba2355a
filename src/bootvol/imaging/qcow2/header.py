"""The header of a qcow2 image (qcow2 specification, "Header")."""

from __future__ import annotations

import struct
from enum import IntFlag
from typing import Final

import attrs

from bootvol.errors import (
    ImageCorrupt,
    ImageNeedsRepair,
    ImageRefersElsewhere,
    UnsupportedFormat,
)

MAGIC: Final = b"QFI\xfb"
#: Number of first bytes of an image that :func:`parse` reads.
HEADER: Final = 112

#: magic, version, backing_file_offset, backing_file_size, cluster_bits, size, crypt_method,
#: l1_size, l1_table_offset, refcount_table_offset, refcount_table_clusters.
_FIELDS: Final = struct.Struct(">4sIQIIQIIQQI")
#: incompatible_features and header_length, in version 3 only. compression_type follows.
_FEATURES: Final = struct.Struct(">72xQ")
_HEADER_LENGTH: Final = struct.Struct(">100xI")
#: Length of a header of version 3 without `compression_type`, in bytes.
_SHORT: Final = 104
_VERSIONS: Final = (2, 3)

#: Limits of QEMU: smallest and largest logarithm of the cluster size; largest L1 table in bytes.
_CLUSTER_BITS: Final = range(9, 22)
_EXTENDED_BITS: Final = range(14, 22)
_LARGEST_L1: Final = 32 * 1024 * 1024

_ENTRY: Final = 8


class _Incompatible(IntFlag):
    """The incompatible features of the specification."""

    DIRTY = 1
    CORRUPT = 2
    DATA_FILE = 4
    COMPRESSION = 8
    EXTENDED_L2 = 16


_KNOWN: Final = sum(_Incompatible)


@attrs.frozen
class Header:
    """The values that lead to the clusters of the disk.

    :ivar version: 2 or 3.
    :ivar cluster_bits: logarithm of the cluster size in bytes.
    :ivar disk_size: size of the disk in bytes.
    :ivar l1_offset: offset of the L1 table in the image, in bytes.
    :ivar l1_entries: number of entries of the L1 table that the disk needs.
    :ivar refcounts: offset and length in bytes of the table of reference counts, which is not read.
    :ivar zstd: whether compressed clusters are zstd; else deflate.
    :ivar extended: whether L2 entries have 32 subclusters each.
    """

    version: int
    cluster_bits: int
    disk_size: int
    l1_offset: int
    l1_entries: int
    refcounts: tuple[int, int]
    zstd: bool
    extended: bool

    @property
    def cluster(self) -> int:
        """Size of a cluster in bytes."""
        return 1 << self.cluster_bits

    @property
    def subcluster(self) -> int:
        """Size in bytes of the smallest part of the disk with a state of its own."""
        return self.cluster // 32 if self.extended else self.cluster

    @property
    def entry(self) -> int:
        """Size of an L2 entry in bytes."""
        return _ENTRY * 2 if self.extended else _ENTRY


def parse(head: bytes) -> Header:
    """Read the header of an image.

    The dirty bit is ignored: it concerns reference counts only, which no reader needs.

    :param head: at least :data:`HEADER` first bytes of the image, or all of a shorter image.
    :raises bootvol.errors.ImageCorrupt: if the header breaks the specification.
    :raises bootvol.errors.ImageNeedsRepair: if the image is marked as corrupt.
    :raises bootvol.errors.ImageRefersElsewhere: if parts of the disk are in other files.
    :raises bootvol.errors.UnsupportedFormat: if the image is encrypted, of another version, or has
        unknown features.
    """
    if len(head) < _FIELDS.size or not head.startswith(MAGIC):
        raise ImageCorrupt("The qcow2 image has no complete header.")
    (
        _,
        version,
        backing,
        _,
        bits,
        size,
        crypt,
        l1_size,
        l1_offset,
        refcounts,
        refcount_clusters,
    ) = _FIELDS.unpack_from(head)
    if version not in _VERSIONS:
        raise UnsupportedFormat(f"The qcow2 image is of version {version}, which is not supported.")
    features, zstd = _features(head) if version > 2 else (_Incompatible(0), False)
    if backing or features & _Incompatible.DATA_FILE:
        raise ImageRefersElsewhere("The image has a backing or data file.")
    if features & _Incompatible.CORRUPT:
        raise ImageNeedsRepair(
            "The image is marked as corrupt: QEMU found damage when it wrote the image."
        )
    if crypt:
        raise UnsupportedFormat("The image is encrypted.")
    extended = bool(features & _Incompatible.EXTENDED_L2)
    if bits not in (_EXTENDED_BITS if extended else _CLUSTER_BITS):
        raise ImageCorrupt(f"The qcow2 image states clusters of 2^{bits} bytes.")
    counts = refcounts, refcount_clusters << bits
    header = Header(version, bits, size, l1_offset, 0, counts, zstd, extended)
    covered = header.cluster * (header.cluster // header.entry)
    needed = -(-size // covered)
    if l1_size < needed or l1_size * _ENTRY > _LARGEST_L1 or l1_offset % header.cluster:
        raise ImageCorrupt("The L1 table of the qcow2 image does not fit the disk's size.")
    return attrs.evolve(header, l1_entries=needed)


def _features(head: bytes) -> tuple[_Incompatible, bool]:
    """Return the incompatible features of an image of version 3, and whether it uses zstd."""
    if len(head) < _SHORT:
        raise ImageCorrupt("The qcow2 image has no complete header.")
    (bits,) = _FEATURES.unpack_from(head)
    (length,) = _HEADER_LENGTH.unpack_from(head)
    if bits & ~_KNOWN:
        raise UnsupportedFormat("The qcow2 image has features that are not known.")
    if length < _SHORT:
        raise ImageCorrupt(f"The qcow2 image states a header of {length} bytes.")
    kind = head[_SHORT] if length > _SHORT and len(head) > _SHORT else 0
    if kind > 1 or bool(kind) is not bool(bits & _Incompatible.COMPRESSION):
        raise UnsupportedFormat(f"The qcow2 image has the unknown compression {kind}.")
    return _Incompatible(bits), kind == 1
