"""Inspects an image as the bytes arrive: disk or not, its format, references to other files."""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable
from typing import Final

from oslo_utils.imageutils import format_inspector as oslo

from bootvol.errors import (
    ContainerTruncated,
    FormatMismatch,
    ImageAmbiguous,
    ImageCorrupt,
    ImageRefersElsewhere,
    ImageTooLarge,
    ImportFailed,
    NotADisk,
    UnsupportedFormat,
)
from bootvol.imaging import magics
from bootvol.imaging.stated_sizes import needed
from bootvol.imaging.texts import kind_of_text
from bootvol.model import Image

# The inspectors would log bytes of images, up to a MiB in a line.  bootvol's errors say enough.
logging.getLogger(oslo.__name__).disabled = True

#: Stated formats of images whose bytes are the disk's bytes.  A bootable ISO image is one.
PLAIN: Final = frozenset({"raw", "iso"})


class _Qcow2(oslo.QcowInspector):
    """An inspector that also knows the last feature that QEMU reads: extended L2 entries, bit 4."""

    I_FEATURES_MAX_BIT = 5


class _Vhdx(oslo.VHDXInspector):
    """An inspector that looks for the size of the disk once.

    Otherwise each 64 KiB of an image without this size would take several milliseconds.
    """

    def post_process(self) -> None:
        super().post_process()
        has_metadata = self.has_region("metadata")
        if self.region("header").complete and not has_metadata:
            raise oslo.ImageFormatError("the region of metadata is missing")
        if has_metadata and self.region("metadata").complete and not self.has_region("vds"):
            raise oslo.ImageFormatError("the size of the disk is missing")


#: Formats whose bytes are not the bytes of the disk inside.  For each format: the offset of the
#: signature in bytes, the signature, and the inspector.
CONTAINERS: Final[dict[str, tuple[int, bytes, Callable[[], oslo.FileInspector]]]] = {
    "qcow2": (0, b"QFI\xfb", _Qcow2),
    "vmdk": (0, b"KDMV", oslo.VMDKInspector),
    "vhd": (0, b"conectix", oslo.VHDInspector),
    "vhdx": (0, b"vhdxfile", _Vhdx),
    "vdi": (0x40, b"\x7f\x10\xda\xbe", oslo.VDIInspector),
}

#: Endings of compressed images, behind the ending of the format.
_PACKED: Final = (".gz", ".bz2", ".xz", ".zst")
#: The name of a raw disk that a vmdk describes (VMware, Virtual Disk Format 1.1, "Extents").
_FLAT: Final = "-flat.vmdk"

READABLE: Final = PLAIN | CONTAINERS.keys()

#: The footer of a fixed-size vhd, behind the plain bytes of the disk (Virtual Hard Disk Image
#: Format Specification, "Hard Disk Footer"): its size in bytes, its first bytes, and the fields of
#: its kind and checksum.
FOOTER: Final = 512
_FOOTER_COOKIE: Final = b"conectix"
_FOOTER_KIND, _FOOTER_SUM = slice(60, 64), slice(64, 68)
_FIXED: Final = 2

#: Kinds of disks that a container must not be at the same time.
_DISKS: Final[dict[str, Callable[[], oslo.FileInspector]]] = {
    "an ISO image": oslo.ISOInspector,
    "a partitioned disk": oslo.GPTInspector,
}

#: The beginning of a vmdk that is only a text about other files.
_DESCRIPTOR: Final = b"# Disk DescriptorFile"

#: The bytes by which any container may be larger than its disk.
_MARGIN: Final = 64 * 1024 * 1024

#: Number of bytes that show a format: all known headers lie in these bytes.
HEAD: Final = 64 * 1024

_ZEROS: Final = memoryview(bytes(HEAD))

#: oslo's checks for images that make their reader read other files instead.
_ELSEWHERE: Final = frozenset({"backing_file", "data_file", "descriptor"})
#: oslo's text for a vmdk without its footer.  The footer of a stream-optimized vmdk says where the
#: tables are.
_CUT_OFF: Final = "Header and footer signature do not match"
#: oslo's check for an unsupported version or part of a format.
_UNKNOWN: Final = "unknown_features"


class ContainerDetected(Exception):
    """The image is a container: its bytes have to be copied to another place first.

    :ivar container: format of the container.
    :ivar disk_size: stated size of the disk in bytes; 0 if not known yet.
    """

    def __init__(self, container: str, disk_size: int) -> None:
        super().__init__(container)
        self.container = container
        self.disk_size = disk_size


class Inspection:
    """The inspection of one image while the image streams by.

    The methods block for as long as searching a chunk takes.

    :param stated: the format that the image's source states; None if the source states none.
    :ivar container: format of the container; None if the image's bytes are the disk's bytes.
    """

    def __init__(self, stated: str | None) -> None:
        self.container: str | None = None
        self._stated = stated
        self._last = b""
        self._inspector: oslo.FileInspector | None = None
        self._head = bytearray()
        self._tells: bool | None = None
        self._encrypted = False
        self._needed = 0

    @property
    def disk_size(self) -> int:
        """Size of the disk in bytes, as the container states; 0 if not known yet."""
        try:
            return self._inspector.virtual_size if self._inspector else 0
        except struct.error as error:
            raise ImageCorrupt(f"The {self.container} image is broken: {error}.") from error

    @property
    def may_have_footer(self) -> bool:
        """True if the image, so far a plain disk, may still prove to be a fixed-size vhd."""
        return self.container is None and self._stated is None

    @property
    def tells_nothing(self) -> bool:
        """True if the received bytes are enough, and none is a signature of a disk.

        Such signatures belong to partition tables, boot sectors, file systems, LVM and the like.
        """
        return self.container is None and self._tells is False

    @property
    def is_encrypted(self) -> bool:
        """True if the received bytes are enough, and begin a disk encrypted as a whole."""
        return self.container is None and self._encrypted

    @property
    def needed(self) -> int:
        """The fewest bytes of the disk, as its first bytes state; 0 if these state no size."""
        return self._needed if self.container is None else 0

    def begin(self, chunk: memoryview) -> None:
        """Inspect the image's first bytes.

        :param chunk: at least :data:`HEAD` bytes, or all of a shorter image.
        :raises NotADisk: if the image is empty, or a document.
        :raises UnsupportedFormat: if the format is not supported.
        :raises FormatMismatch: if the format is not the stated one.
        :raises ImageAmbiguous: if the image has several formats at once.
        :raises ImageRefersElsewhere: if the image refers to other files for parts of the disk.
        """
        head = bytes(chunk[:HEAD])
        _check_content(head)
        found = [
            name
            for name, (offset, magic, _) in CONTAINERS.items()
            if head.startswith(magic, offset)
        ]
        others = [name for name, make in _DISKS.items() if _matches(make(), head)] if found else []
        if len(found) + len(others) > 1:
            raise ImageAmbiguous(f"The image is {' and '.join([*found, *others])} at once.")
        self.container = self._agreed(found[0] if found else None)
        if self.container is not None and found:
            self._inspector = CONTAINERS[self.container][2]()
        self.more(chunk)
        if self._inspector is not None and self._inspector.complete:
            self._check_safe()

    def more(self, chunk: memoryview) -> None:
        """Inspect the next bytes.

        :raises ImageCorrupt: if the bytes cannot be right.
        """
        self._last = (self._last + bytes(chunk[-FOOTER:]))[-FOOTER:]
        self._look(bytes(chunk[: magics.LOOK]))
        if self._inspector is not None:
            try:
                # Pass small pieces: in a large piece, the inspector may miss a part to which the
                # beginning of the same piece refers.
                for at in range(0, len(chunk), HEAD):
                    self._inspector.eat_chunk(bytes(chunk[at : at + HEAD]))
            except (oslo.ImageFormatError, struct.error) as error:
                raise ImageCorrupt(f"The {self.container} image is broken: {error}.") from error

    def skip(self, length: int) -> None:
        """Inspect the next ``length`` bytes, which are zeros that are not read.

        :raises ImageCorrupt: if the zeros cannot be right.
        """
        if self._inspector is not None and not self._inspector.complete:
            # The inspector still waits for a part of the image, which may lie among the zeros.
            for left in range(length, 0, -HEAD):
                self.more(_ZEROS[:left])
        else:
            self._last = (self._last + bytes(min(length, FOOTER)))[-FOOTER:]
            self._look(bytes(min(length, magics.LOOK)))

    def finish(self) -> None:
        """Judge the whole image, after its last byte.

        Only now a plain disk may prove to be a container.

        :raises ImageRefersElsewhere: if the image refers to other files for parts of the disk.
        :raises ImageCorrupt: if the image lacks a part that its format needs, or ends like a broken
            image.
        """
        if self._inspector is not None:
            self._inspector.finish()
            if not self._inspector.complete:
                raise ContainerTruncated(f"The {self.container} image ends within its first parts.")
            self._check_safe()
        elif self._stated is None and self._last.startswith(_FOOTER_COOKIE):
            if not _is_footer_of_fixed(self._last):
                # QEMU does not accept the image either.  As a raw disk, the image would contain the
                # footer.
                raise ImageCorrupt("The image ends like a vhd image, but its footer is broken.")
            self.container = "vhd"
        elif (refusal := magics.refusal_of_end(self._last)) is not None:
            raise refusal
        self._look(b"", whole=True)

    def check_packed(self, container: str | None) -> None:
        """Compare the found container with the expected one.

        :param container: the known format of the container; None for no container.
        :raises ContainerDetected: if the found container is another.
        """
        if self.container != container:
            raise ContainerDetected(str(self.container), self.disk_size)

    def _look(self, data: bytes, *, whole: bool = False) -> None:
        """Collect the image's first bytes, until a search for signatures of disks is possible."""
        if self._tells is None:
            self._head += data[: magics.LOOK - len(self._head)]
            if whole or len(self._head) == magics.LOOK:
                head = bytes(self._head)
                self._encrypted = magics.is_encrypted(head)
                self._tells, self._needed = magics.tells_a_disk(head), needed(head)
                self._head.clear()

    def _agreed(self, found: str | None) -> str | None:
        """Return the format to read the image in.  The stated and the found format must agree."""
        stated = None if self._stated in PLAIN else self._stated
        if self._stated is None or found == stated:
            return found
        if stated == "vhd" and found is None:
            # Only its last bytes identify a fixed-size vhd.
            return stated
        raise FormatMismatch(
            f"The image was stated to be {self._stated}, but is {found or 'a raw disk'}."
        )

    def _check_safe(self) -> None:
        assert self._inspector is not None  # noqa: S101 - for mypy
        try:
            self._inspector.safety_check()
        except oslo.SafetyCheckFailed as error:
            what = "; ".join(str(each) for each in error.failures.values())
            kind: type[ImportFailed] = ImageCorrupt
            if _CUT_OFF in what:
                raise ContainerTruncated(
                    f"The {self.container} image is incomplete: its footer is missing."
                ) from error
            if _ELSEWHERE & error.failures.keys():
                kind = ImageRefersElsewhere
            elif _UNKNOWN in error.failures:
                kind = UnsupportedFormat
            raise kind(f"The {self.container} image is refused: {what}.") from error
        except oslo.ImageFormatError as error:
            raise ImageCorrupt(f"The {self.container} image is broken: {error}.") from error


class Uninspected(Inspection):
    """An inspection that accepts all bytes: the content of a volume belongs to its guest."""

    def begin(self, chunk: memoryview) -> None:
        """See :meth:`Inspection.begin`."""

    def more(self, chunk: memoryview) -> None:
        """See :meth:`Inspection.more`."""

    def skip(self, length: int) -> None:
        """See :meth:`Inspection.skip`."""

    def finish(self) -> None:
        """See :meth:`Inspection.finish`."""


def largest_container(disk_size: int) -> int:
    """Return the largest allowed container for a disk; sizes in bytes.

    A container may be larger than its disk (tables, snapshots), but not by much.
    """
    return disk_size + disk_size // 8 + _MARGIN


def check_container_size(size: int, disk_size: int) -> None:
    """Refuse a container that is too large for a disk; sizes in bytes.

    :raises ImageTooLarge: if the container is larger than :func:`largest_container`.
    """
    most = largest_container(disk_size)
    if size > most:
        raise ImageTooLarge(f"The image has {size} bytes; the volume has room for {most}.")


def check_stated(image_format: str | None) -> None:
    """Refuse an unsupported format, before any byte is fetched.

    :raises UnsupportedFormat: if the format is not supported.  The text names the supported ones.
    """
    if image_format is not None and image_format not in READABLE:
        known = ", ".join(sorted(READABLE))
        raise UnsupportedFormat(
            f"Images in the format {image_format} are not supported; supported formats: {known}."
        )


def is_misnamed(image: Image, container: str | None) -> bool:
    """Return whether the name of an image without a stated format promises another container.

    :param container: the found container; None for a plain disk.
    """
    named = None if image.format else _format_in(image.name)
    return named not in (None, container)


def _format_in(name: str) -> str | None:
    """Return the format of the container that the name of an image ends in; None for no container.

    Plain disks have many endings, so their endings state no format.
    """
    name = name.lower()
    for packed in _PACKED:
        name = name.removesuffix(packed)
    stem, _, ending = name.rpartition(".")
    return ending if stem and ending in CONTAINERS and not name.endswith(_FLAT) else None


def _check_content(head: bytes) -> None:
    """Refuse an image that is neither a disk nor a supported container."""
    if not head:
        raise NotADisk("The image is empty.")
    if head.startswith(_DESCRIPTOR):
        raise ImageRefersElsewhere("The vmdk image only describes other files.")
    text = kind_of_text(head, whole=len(head) < HEAD)
    if text is not None:
        raise NotADisk(f"The image is {text}, not a disk.")
    refusal = magics.refusal(head)
    if refusal is not None:
        raise refusal


def _is_footer_of_fixed(last: bytes) -> bool:
    """Return whether an image's last bytes are a valid footer of a fixed-size vhd."""
    stated = int.from_bytes(last[_FOOTER_SUM], "big")
    counted = ~(sum(last) - sum(last[_FOOTER_SUM])) & 0xFFFFFFFF
    return stated == counted and int.from_bytes(last[_FOOTER_KIND], "big") == _FIXED


def _matches(inspector: oslo.FileInspector, head: bytes) -> bool:
    try:
        inspector.eat_chunk(head)
    except oslo.ImageFormatError:
        return False
    return bool(inspector.format_match)
