"""Cuts gzip and zstd images into members.

The members of BGZF files begin with their sizes (SAM specification, 4.1 "The BGZF compression
format"), and so do the blocks of zstd's frames (RFC 8878, 3.1.1.2 "Blocks").

This module trusts no size: the decoders notice wrong ones.
"""

from __future__ import annotations

from typing import Final

from bootvol.imaging.splitting import REST, Do, Mark, Needs, Splitter, Steps

#: The largest first frame of an image to cut, in bytes.
_LARGEST_FRAME: Final = 64 * 1024 * 1024

# --- gzip ----------------------------------------------------------------------------------------


def _member_size(head: bytes) -> int | None:
    """Return the size of a member of a BGZF file in bytes; None for other members.

    :param head: the first bytes of the member, as many as are there.
    """
    if head[:4] != b"\x1f\x8b\x08\x04":
        return None
    at, end = 12, 12 + int.from_bytes(head[10:12], "little")
    while at + 4 < min(end, len(head)):
        size = int.from_bytes(head[at + 2 : at + 4], "little")
        if head[at : at + 2] == b"BC" and size == 2:
            return int.from_bytes(head[at + 4 : at + 6], "little") + 1
        at += 4 + size
    return None


def _gzip() -> Steps:
    yield Do.PASS, 0
    while True:
        yield Mark.MEMBER
        head = yield Do.SEE, 12
        if head[:4] == b"\x1f\x8b\x08\x04":
            head += yield Do.SEE, int.from_bytes(head[10:12], "little")
        size = _member_size(head)
        if size is None or size < len(head):
            yield REST
            return
        yield Do.PASS, size - len(head)


# --- zstd ----------------------------------------------------------------------------------------

_FRAME: Final = b"\x28\xb5\x2f\xfd"
_SKIPPABLE: Final = b"\x2a\x4d\x18"


def _zstd() -> Steps:
    yield Do.PASS, 0
    while True:
        yield Mark.MEMBER
        magic = yield Do.SEE, 4
        if magic[1:] == _SKIPPABLE and magic[0] >> 4 == 5:
            size = yield Do.SEE, 4
            yield Do.PASS, int.from_bytes(size, "little")
            continue
        if magic != _FRAME:
            break
        (descriptor,) = yield Do.SEE, 1
        header = yield Do.SEE, _header_size(descriptor) - 1
        yield Needs(_window(descriptor, header))
        last = 0
        while not last:
            block = int.from_bytes((yield Do.SEE, 3), "little")
            last, kind, size_of_block = block & 1, block >> 1 & 3, block >> 3
            # A block of one repeated byte has this byte only.
            yield Do.PASS, 1 if kind == 1 else size_of_block
        yield Do.PASS, 4 if descriptor & 4 else 0
    yield REST


def _header_size(descriptor: int) -> int:
    """Return the size of a frame's header in bytes (RFC 8878, 3.1.1.1)."""
    single = descriptor >> 5 & 1
    content = (1 if single else 0, 2, 4, 8)[descriptor >> 6]
    return 1 + (not single) + (0, 1, 2, 4)[descriptor & 3] + content


def _content_size(descriptor: int, header: bytes) -> int | None:
    """Return the size of a frame's content in bytes, if stated.

    :param header: the header behind its descriptor.
    """
    size = (descriptor >> 5 & 1, 2, 4, 8)[descriptor >> 6]
    if not size:
        return None
    return int.from_bytes(header[len(header) - size :], "little") + (256 if size == 2 else 0)


def _window(descriptor: int, header: bytes) -> int:
    """Return the size of a frame's window in bytes (RFC 8878, 3.1.1.1.2)."""
    if descriptor >> 5 & 1:
        return _content_size(descriptor, header) or 0
    base = 1 << 10 + (header[0] >> 3)
    return base + base // 8 * (header[0] & 7)


def members_of(head: bytes) -> Splitter | None:
    """Return a splitter for a gzip image; None if its first member does not state its size.

    :param head: the first bytes of the image.
    """
    return Splitter(_gzip()) if _member_size(head) is not None else None


def frames_of(head: bytes) -> Splitter | None:
    """Return a splitter for a zstd image; None if its first frame may be the whole image.

    :param head: the first bytes of the image.
    """
    if head[:4] == _FRAME:
        end = 4 + _header_size(head[4]) if len(head) > 4 else 5
        if len(head) < end:
            return None
        size = _content_size(head[4], head[5:end])
        if size is None or size > _LARGEST_FRAME:
            return None
    # pzstd writes a skippable frame first.
    return Splitter(_zstd())
