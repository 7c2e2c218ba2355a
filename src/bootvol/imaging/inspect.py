"""Looks at an image's first bytes: is it a disk, and of the format that was stated?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from oslo_utils.imageutils import format_inspector

from bootvol.errors import NotADisk, UnsupportedFormat

#: What an image may be stated to be; an ISO image that boots is written as it is.
READABLE: Final = frozenset({"raw", "iso"})

#: Formats whose bytes are not those of the disk in them; written as they are they cannot boot.
_CONTAINERS: Final[dict[str, Callable[[], format_inspector.FileInspector]]] = {
    "qcow2": format_inspector.QcowInspector,
    "qed": format_inspector.QEDInspector,
    "vhd": format_inspector.VHDInspector,
    "vhdx": format_inspector.VHDXInspector,
    "vdi": format_inspector.VDIInspector,
    "luks": format_inspector.LUKSInspector,
}

#: How compressed images begin.
COMPRESSED: Final = {
    b"\x1f\x8b": "gzip",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
}

#: Formats that their first bytes alone tell; what is compressed has been unpacked before, once.
_MAGIC: Final = {
    **COMPRESSED,
    b"KDMV": "vmdk",
    b"# Disk DescriptorFile": "vmdk",
}

#: The first bytes of documents that servers send instead of the file that was asked for.
_DOCUMENTS: Final = {
    b"<": "an HTML or XML page",
    b"{": "a JSON document",
    b"[": "a JSON document",
}

#: How many bytes tell a format; every header that is looked for lies within them.
HEAD: Final = 64 * 1024


def check_stated(image_format: str) -> None:
    """Refuse a format that cannot be read, before anything is fetched.

    :raises UnsupportedFormat: always with a word on which can.
    """
    if image_format not in READABLE:
        known = ", ".join(sorted(READABLE))
        raise UnsupportedFormat(f"Images in the format {image_format} are not read, only {known}.")


def check_head(head: memoryview) -> None:
    """Refuse what is plainly not the raw disk that was stated.

    :param head: the image's first :data:`HEAD` bytes, or all of a shorter one.
    :raises NotADisk: it is empty, or a document.
    :raises UnsupportedFormat: it is a compressed or container format.
    """
    first = bytes(head[:HEAD])
    if not first:
        raise NotADisk("The image is empty.")
    for magic, name in _DOCUMENTS.items():
        if first.lstrip().startswith(magic) and b"\0" not in first[:256]:
            raise NotADisk(f"The image is {name}, not a disk.")
    found = [name for magic, name in _MAGIC.items() if first.startswith(magic)]
    found += [name for name, inspector in _CONTAINERS.items() if _matches(inspector(), first)]
    if found:
        raise UnsupportedFormat(f"The image was stated to be raw, but it is {found[0]}.")


def _matches(inspector: format_inspector.FileInspector, head: bytes) -> bool:
    try:
        inspector.eat_chunk(head)
    except format_inspector.ImageFormatError:
        return False
    return bool(inspector.format_match)
