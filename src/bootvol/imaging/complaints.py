"""Turns the complaints of QEMU's tools into errors that help people."""

from __future__ import annotations

import errno
import os
import re
from typing import Final

from bootvol.errors import ContainerTruncated, ImageCorrupt, ImportFailed, UnsupportedFormat

#: Complaints of QEMU's tools about an image that was cut off.
_BEYOND: Final = re.compile(r"truncated|after (?:the )?end of|exceeding the end of|after EOF")
#: The complaint about a vhdx image that was not closed (MS-VHDX, section 2.3).
LOG: Final = "log that needs to be replayed"
#: Complaints of `qemu-img check` that concern refcounts only.  The refcounts of a qcow2 image that
#: was not closed may be wrong (qcow2 specification, incompatible feature bit 0).  Reading the image
#: needs no refcounts.
_REFCOUNTS: Final = re.compile(
    r"ERROR cluster \d+ refcount=\d+ reference=\d+"
    r"|ERROR OFLAG_COPIED (?:L2|data) cluster: .*refcount=\d+"
    r"|ERROR refcount block \d+ (?:refcount=\d+|is outside image)"
    r"|ERROR need to rebuild refcount structures"
)
#: The beginning of a line with a complaint.
_COMPLAINT: Final = re.compile(r"ERROR|qemu-\w+:")
#: The name of the image in the sandbox, which means nothing to people.
_NAME: Final = r"'?/proc/self/fd/\d+'?"
#: Text before a reason: the complaining program and the attempt (for a vhd, with all options).
_PREFIXES: Final = re.compile(
    r"qemu-\w+: |ERROR:? "
    r"|(?:Could not open|Failed to blk_new_open) '[^']*/proc/self/fd/\d+[^']*': "
    r"|Disconnect client, due to: |Failed to send reply: |reading from file failed: "
)


#: Complaints about a good image of an unsupported kind, in QEMU's own words.
_UNSUPPORTED: Final = re.compile("not supported|unsupported", re.IGNORECASE)
#: The same complaint as only the system's error text (for vhdx: block/vhdx.c).
_NOT_SUPPORTED: Final = os.strerror(errno.ENOTSUP)
#: The system's error texts, which do not tell the fault of an image.
_ERRORS: Final = frozenset(os.strerror(code) for code in errno.errorcode)


class Complaints:
    """A parser for the output of `qemu-img check`, line by line.

    :param unclosed: whether the image is marked as not closed; then its refcounts may be wrong.
    :ivar said: the first complaint about a cut-off image, or else the first complaint.  If the
        image was not closed, complaints about refcounts do not count.
    :ivar only_refcounts: whether the image was not closed, and complaints came about refcounts
        alone.
    """

    def __init__(self, unclosed: bool) -> None:
        self.said = ""
        self.only_refcounts = False
        self._unclosed = unclosed

    def take(self, line: bytes) -> None:
        """Process a line, given without its end."""
        text = line.decode("utf-8", "replace")
        if not _COMPLAINT.match(text):
            return
        if self._unclosed and _REFCOUNTS.fullmatch(text):
            self.only_refcounts = not self.said
            return
        self.only_refcounts = False
        if not self.said or (_BEYOND.search(text) and not _BEYOND.search(self.said)):
            self.said = text


def broken(said: str, code: int) -> ImportFailed:
    """Return the error for a complaint of one of QEMU's tools.

    :param said: the tool's whole standard error; advice for the tool's user may follow the
        complaint.
    :param code: exit code of the tool, for a tool without a complaint.
    """
    lines = said.strip().splitlines() or [f"exit code {code}"]
    complaints = [line for line in lines if _COMPLAINT.match(line)] or lines
    plain = [re.sub(_NAME, "the image", _PREFIXES.sub("", each)).rstrip(".") for each in complaints]
    telling = [each for each in plain if each not in _ERRORS]
    if _BEYOND.search(said):
        beyond = next(filter(_BEYOND.search, reversed(plain)), plain[-1])
        return ContainerTruncated(f"The image refers to parts beyond its end: {beyond}.")
    if plain[-1] == _NOT_SUPPORTED:
        return UnsupportedFormat(
            "QEMU does not read this kind of image, for example a difference to another image, or"
            " a disk whose sectors have 4096 bytes."
        )
    if telling and _UNSUPPORTED.search(telling[-1]):
        return UnsupportedFormat(f"bootvol does not read this kind of image: {telling[-1]}.")
    if not telling:
        return ImageCorrupt(
            f"The image cannot be read: it is broken or incomplete (QEMU says: {plain[-1]})."
        )
    return ImageCorrupt(f"The image cannot be read: {telling[-1]}.")
