"""Looks at an image as it comes: is it a disk, of which format, and does it keep to itself?"""

from __future__ import annotations

import codecs
import string
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
    ImportFailed,
    NotADisk,
    UnsupportedFormat,
)
from bootvol.imaging import magics

#: What may be stated of an image whose bytes are the disk's; an ISO image that boots is one.
PLAIN: Final = frozenset({"raw", "iso"})


class _Qcow2(oslo.QcowInspector):
    """Knows the last feature as well that qemu reads, extended L2 entries (bit 4)."""

    I_FEATURES_MAX_BIT = 5


#: Formats whose bytes are not those of the disk in them: where their signature lies, in bytes from
#: the start, that signature, and what examines them.
CONTAINERS: Final[dict[str, tuple[int, bytes, Callable[[], oslo.FileInspector]]]] = {
    "qcow2": (0, b"QFI\xfb", _Qcow2),
    "vmdk": (0, b"KDMV", oslo.VMDKInspector),
    "vhd": (0, b"conectix", oslo.VHDInspector),
    "vhdx": (0, b"vhdxfile", oslo.VHDXInspector),
    "vdi": (0x40, b"\x7f\x10\xda\xbe", oslo.VDIInspector),
}

READABLE: Final = PLAIN | CONTAINERS.keys()

#: What a vhd of a fixed size ends with, after its disk as it is (Virtual Hard Disk Image Format
#: Specification, "Hard Disk Footer"): its bytes, how it begins, and where in it its kind and
#: checksum are.
FOOTER: Final = 512
_FOOTER_COOKIE: Final = b"conectix"
_FOOTER_KIND, _FOOTER_SUM = slice(60, 64), slice(64, 68)
_FIXED: Final = 2

#: What a container has no business to be at once.
_DISKS: Final[dict[str, Callable[[], oslo.FileInspector]]] = {
    "an ISO image": oslo.ISOInspector,
    "a partitioned disk": oslo.GPTInspector,
}

#: How documents begin that servers send instead of the file that was asked for, after a mark of
#: how they are encoded.
_DOCUMENTS: Final = {
    "<": "an HTML or XML page",
    "{": "a JSON document",
    "[": "a JSON document",
}
_MARKS: Final = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
#: The first bytes of a disk, among which are some that no document has.
_SECTOR: Final = 512
_NOT_TEXT: Final = {chr(each) for each in (*range(32), 127)} - set(string.whitespace)

#: A vmdk of which this is the beginning is only a text about other files.
_DESCRIPTOR: Final = b"# Disk DescriptorFile"

#: How much larger than its disk a container may be in any case, in bytes.
_MARGIN: Final = 64 * 1024 * 1024

#: How many bytes tell a format; every header that is looked for lies within them.
HEAD: Final = 64 * 1024

_ZEROS: Final = memoryview(bytes(HEAD))

#: Checks of oslo's that find an image which would have other files read in its place.
_ELSEWHERE: Final = frozenset({"backing_file", "data_file", "descriptor"})
#: What oslo says of a vmdk whose tables are told by its last bytes (a stream-optimized one), but
#: are not.
_CUT_OFF: Final = "Header and footer signature do not match"
#: The one that finds a version, or a part of the format, that is not read.
_UNKNOWN: Final = "unknown_features"


class Packed(Exception):
    """The image's bytes are not those of its disk: it has to be copied to another place first.

    :ivar container: its format.
    :ivar disk_size: what it says that its disk has, in bytes; 0 where that is not known yet.
    """

    def __init__(self, container: str, disk_size: int) -> None:
        super().__init__(container)
        self.container = container
        self.disk_size = disk_size


class Inspection:
    """What is found out about one image while it streams by.

    Its methods block for as long as searching a chunk takes.

    :param stated: the format that the image's source states; None where it does not.
    :ivar container: the format that the image is packed in; None if its bytes are the disk's.
    """

    def __init__(self, stated: str | None) -> None:
        self.container: str | None = None
        self._stated = stated
        self._last = b""
        self._inspector: oslo.FileInspector | None = None
        self._head = bytearray()
        self._tells: bool | None = None

    @property
    def disk_size(self) -> int:
        """The size in bytes that a container says its disk has; 0 where that is not known yet."""
        try:
            return self._inspector.virtual_size if self._inspector else 0
        except struct.error as error:
            raise ImageCorrupt(f"The {self.container} image is broken: {error}.") from error

    @property
    def may_have_footer(self) -> bool:
        """Whether the image, so far a plain disk, may turn out to be a vhd of a fixed size."""
        return self.container is None and self._stated is None

    @property
    def tells_nothing(self) -> bool:
        """Whether enough has come to know that nothing tells that this is a disk.

        Nothing are: a partition table, a boot sector, a file system, a volume of LVM or the like.
        """
        return self.container is None and self._tells is False

    def begin(self, chunk: memoryview) -> None:
        """Take in the image's first bytes.

        :param chunk: at least :data:`HEAD` bytes, or all of a shorter image.
        :raises NotADisk: it is empty, or a document.
        :raises UnsupportedFormat: it is in a format that is not read.
        :raises FormatMismatch: it is in another format than the stated one.
        :raises ImageAmbiguous: it is in several formats at once.
        :raises ImageRefersElsewhere: it says that some of the disk lies in other files.
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
        """Take in the bytes that come next.

        :raises ImageCorrupt: they cannot be right.
        """
        self._last = (self._last + bytes(chunk[-FOOTER:]))[-FOOTER:]
        self._look(bytes(chunk[: magics.LOOK]))
        if self._inspector is not None:
            try:
                # In small pieces: of a large one it may miss what its own beginning leads to.
                for at in range(0, len(chunk), HEAD):
                    self._inspector.eat_chunk(bytes(chunk[at : at + HEAD]))
            except (oslo.ImageFormatError, struct.error) as error:
                raise ImageCorrupt(f"The {self.container} image is broken: {error}.") from error

    def skip(self, length: int) -> None:
        """Take in so many zeros (bytes) that come next, without anybody reading them.

        :raises ImageCorrupt: they cannot be right.
        """
        if self._inspector is not None and not self._inspector.complete:
            # It still waits for something, which may lie among them.
            for left in range(length, 0, -HEAD):
                self.more(_ZEROS[:left])
        else:
            self._last = (self._last + bytes(min(length, FOOTER)))[-FOOTER:]
            self._look(bytes(min(length, magics.LOOK)))

    def finish(self) -> None:
        """Judge the image as a whole: all of it has come.

        What was taken for the bytes of a disk may turn out to be a container only now.

        :raises ImageRefersElsewhere: it says that some of the disk lies in other files.
        :raises ImageCorrupt: it lacks what every image of its format has, or ends as only a broken
            one does.
        """
        if self._inspector is not None:
            self._inspector.finish()
            if not self._inspector.complete:
                raise ContainerTruncated(f"The {self.container} image ends within its first parts.")
            self._check_safe()
        elif self._stated is None and self._last.startswith(_FOOTER_COOKIE):
            if not _is_footer_of_fixed(self._last):
                # QEMU does not take it either; as a raw disk it would have the footer in it.
                raise ImageCorrupt("The image ends as a vhd image does, but its footer is broken.")
            self.container = "vhd"
        elif magics.is_footer_of_dmg(self._last):
            raise UnsupportedFormat("The image is an Apple disk image (dmg), which is not read.")
        self._look(b"", whole=True)

    def check_packed(self, container: str | None) -> None:
        """Check whether the image is packed as it is known to be.

        :param container: the format that the image is known to be packed in; None is none.
        :raises Packed: it is not.
        """
        if self.container != container:
            raise Packed(str(self.container), self.disk_size)

    def _look(self, data: bytes, *, whole: bool = False) -> None:
        """Look at the image's first bytes as they come, until it is known what they tell."""
        if self._tells is None:
            self._head += data[: magics.LOOK - len(self._head)]
            if whole or len(self._head) == magics.LOOK:
                self._tells = magics.tells_a_disk(bytes(self._head))
                self._head.clear()

    def _agreed(self, found: str | None) -> str | None:
        """Return the format to read the image in; what was stated and what is there must agree."""
        stated = None if self._stated in PLAIN else self._stated
        if self._stated is None or found == stated:
            return found
        if stated == "vhd" and found is None:
            # One of a fixed size is told by its last bytes only.
            return stated
        raise FormatMismatch(
            f"The image was stated to be {self._stated}, but it is {found or 'a raw disk'}."
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
                    f"The {self.container} image was cut off: it does not end with its footer."
                ) from error
            if _ELSEWHERE & error.failures.keys():
                kind = ImageRefersElsewhere
            elif _UNKNOWN in error.failures:
                kind = UnsupportedFormat
            raise kind(f"The {self.container} image is refused: {what}.") from error
        except oslo.ImageFormatError as error:
            raise ImageCorrupt(f"The {self.container} image is broken: {error}.") from error


class Uninspected(Inspection):
    """Takes whatever comes: what a volume holds is its guest's affair, and no image."""

    def begin(self, chunk: memoryview) -> None:
        """See :meth:`Inspection.begin`."""

    def more(self, chunk: memoryview) -> None:
        """See :meth:`Inspection.more`."""

    def skip(self, length: int) -> None:
        """See :meth:`Inspection.skip`."""

    def finish(self) -> None:
        """See :meth:`Inspection.finish`."""


def largest_container(disk_size: int) -> int:
    """Return how large a container may be for a disk; sizes in bytes.

    It may be larger than its disk (tables, snapshots), but not by much.
    """
    return disk_size + disk_size // 8 + _MARGIN


def check_stated(image_format: str | None) -> None:
    """Refuse a format that cannot be read, before anything is fetched.

    :raises UnsupportedFormat: always with a word on which can.
    """
    if image_format is not None and image_format not in READABLE:
        known = ", ".join(sorted(READABLE))
        raise UnsupportedFormat(f"Images in the format {image_format} are not read, only {known}.")


def _check_content(head: bytes) -> None:
    """Refuse what is neither a disk nor a container that is read."""
    if not head:
        raise NotADisk("The image is empty.")
    if head.startswith(_DESCRIPTOR):
        raise ImageRefersElsewhere("The vmdk image is only a description of other files.")
    document = _document(head)
    if document is not None:
        raise NotADisk(f"The image is {document}, not a disk.")
    refusal = magics.refusal(head)
    if refusal is not None:
        raise refusal


def _document(head: bytes) -> str | None:
    """Return what kind of document an image is; None if it is none."""
    encoding = next((each for mark, each in _MARKS.items() if head.startswith(mark)), None)
    text = head[:_SECTOR].decode(encoding or "latin-1", "replace").lstrip("\ufeff")
    if _NOT_TEXT.intersection(text):
        return None
    text = text.lstrip()
    for start, name in _DOCUMENTS.items():
        if text.startswith(start):
            return name
    return "nothing but a text" if _is_text(head, encoding or "utf-8") else None


def _is_text(head: bytes, encoding: str) -> bool:
    try:
        # The last character may go on behind the head.
        text = codecs.getincrementaldecoder(encoding)().decode(head, final=len(head) < HEAD)
    except UnicodeDecodeError:
        return False
    return not _NOT_TEXT.intersection(text)


def _is_footer_of_fixed(last: bytes) -> bool:
    """Tell whether an image's last bytes are the footer of a vhd of a fixed size, a right one."""
    stated = int.from_bytes(last[_FOOTER_SUM], "big")
    counted = ~(sum(last) - sum(last[_FOOTER_SUM])) & 0xFFFFFFFF
    return stated == counted and int.from_bytes(last[_FOOTER_KIND], "big") == _FIXED


def _matches(inspector: oslo.FileInspector, head: bytes) -> bool:
    try:
        inspector.eat_chunk(head)
    except oslo.ImageFormatError:
        return False
    return bool(inspector.format_match)
