"""Reads what qemu's tools complain of, and says it so that a person can use it."""

from __future__ import annotations

import errno
import os
import re
from typing import Final

from bootvol.errors import ContainerTruncated, ImageCorrupt, ImportFailed, UnsupportedFormat

#: How qemu's tools say that an image was cut off.
_BEYOND: Final = re.compile(r"truncated|after (?:the )?end of|exceeding the end of|after EOF")
#: How they say that a vhdx image was not closed (MS-VHDX, section 2.3).
LOG: Final = "log that needs to be replayed"
#: What `qemu-img check` says of refcounts and of nothing else.  In a qcow2 image that was not
#: closed they may be wrong (qcow2 specification, incompatible feature bit 0); reading needs none.
_REFCOUNTS: Final = re.compile(
    r"ERROR cluster \d+ refcount=\d+ reference=\d+"
    r"|ERROR OFLAG_COPIED (?:L2|data) cluster: .*refcount=\d+"
    r"|ERROR refcount block \d+ (?:refcount=\d+|is outside image)"
    r"|ERROR need to rebuild refcount structures"
)
#: How a line begins in which they complain.
_COMPLAINT: Final = re.compile(r"ERROR|qemu-\w+:")
#: What they call the image, in the sandbox: a name that is nobody's.
_NAME: Final = r"'?/proc/self/fd/\d+'?"
#: What they say before a reason: who complains, and of what attempt (of a vhd, with all options).
_PREFIXES: Final = re.compile(
    r"qemu-\w+: |ERROR:? "
    r"|(?:Could not open|Failed to blk_new_open) '[^']*/proc/self/fd/\d+[^']*': "
    r"|Disconnect client, due to: |Failed to send reply: |reading from file failed: "
)


#: How they say that a good image is of a kind that they do not read: in words of their own, or by
#: the system's error alone (of vhdx: block/vhdx.c).
_UNSUPPORTED: Final = re.compile("not supported|unsupported", re.IGNORECASE)
_NOT_SUPPORTED: Final = os.strerror(errno.ENOTSUP)
#: What the system calls errors: nobody learns from these what is wrong with an image.
_ERRORS: Final = frozenset(os.strerror(code) for code in errno.errorcode)


class Complaints:
    """Reads what `qemu-img check` writes, line by line.

    :param unclosed: whether the image says that it was not closed, so that its refcounts may be
        wrong.
    :ivar said: the first complaint, or the first that says that the image was cut off; without the
        complaints about refcounts if the image was not closed.
    :ivar only_refcounts: whether there were complaints about the refcounts of an image that was not
        closed, and no others.
    """

    def __init__(self, unclosed: bool) -> None:
        self.said = ""
        self.only_refcounts = False
        self._unclosed = unclosed

    def take(self, line: bytes) -> None:
        """Take in a line, without its end."""
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
    """Return what one of qemu's tools complained of as an error.

    :param said: all that it wrote to standard error; advice for who runs it may follow.
    :param code: with which it ended; told where it said nothing.
    """
    lines = said.strip().splitlines() or [f"exit code {code}"]
    complaints = [line for line in lines if _COMPLAINT.match(line)] or lines
    plain = [re.sub(_NAME, "the image", _PREFIXES.sub("", each)).rstrip(".") for each in complaints]
    telling = [each for each in plain if each not in _ERRORS]
    if _BEYOND.search(said):
        beyond = next(filter(_BEYOND.search, reversed(plain)), plain[-1])
        return ContainerTruncated(f"Parts of the image lie beyond its end: {beyond}.")
    if plain[-1] == _NOT_SUPPORTED:
        return UnsupportedFormat(
            "The image is of a kind that QEMU does not read: a difference to another image, say, or"
            " a disk whose sectors have 4096 bytes."
        )
    if telling and _UNSUPPORTED.search(telling[-1]):
        return UnsupportedFormat(f"The image is of a kind that is not read: {telling[-1]}.")
    if not telling:
        return ImageCorrupt(
            f"The image cannot be read: it is broken, or was cut off (QEMU says: {plain[-1]})."
        )
    return ImageCorrupt(f"The image cannot be read: {telling[-1]}.")
