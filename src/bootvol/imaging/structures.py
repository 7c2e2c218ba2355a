"""Recognizes files whose magic is short, by the structure behind the magic."""

from __future__ import annotations

import struct
from typing import Final

#: Sizes of the second header of a bitmap, from OS/2 to Windows 98 (F images).
_BITMAPS: Final = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
#: Bits of a pixel in an icon; 0 if not stated.
_DEPTHS: Final = frozenset({0, 1, 4, 8, 16, 24, 32})
#: Rates of MPEG audio in kbit/s, by version (1, or 2 and 2.5) and layer (ISO 11172-3 and 13818-3).
_RATES: Final = {
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_SAMPLES: Final = (44100, 48000, 32000)
#: The number of frames that show MPEG audio.
_FRAMES: Final = 4


def kind_by_structure(head: bytes) -> str | None:
    """Return the kind of a picture or sound; None for other bytes.

    :param head: the first bytes of an image: for a sound, at least 8 KiB.
    """
    if _is_bitmap(head):
        return "a picture (BMP)"
    if _is_icon(head):
        return "a picture (ICO)"
    return "a sound (MP3)" if _is_mpeg_audio(head) else None


def _is_bitmap(head: bytes) -> bool:
    """Return whether a file is a bitmap (Microsoft, BITMAPFILEHEADER)."""
    if len(head) < 18 or not head.startswith(b"BM"):
        return False
    reserved, start, second = struct.unpack_from("<III", head, 6)
    return reserved == 0 and second in _BITMAPS and 14 + second <= start < 2**24


def _is_icon(head: bytes) -> bool:
    """Return whether a file is an icon (Microsoft, "Icons": ICONDIR, ICONDIRENTRY)."""
    if len(head) < 22:
        return False
    zero, kind, count = struct.unpack_from("<HHH", head)
    reserved, planes, depth, size, start = struct.unpack_from("<xxxBHHII", head, 6)
    return (
        (zero, kind, reserved) == (0, 1, 0)
        and 0 < count <= 256
        and planes <= 1
        and depth in _DEPTHS
        and size > 0
        and 6 + 16 * count <= start < 2**24
    )


def _is_mpeg_audio(head: bytes) -> bool:
    """Return whether a file begins with frames of MPEG audio of one kind, one after the other."""
    at, first = 0, head[1:2]
    for _ in range(_FRAMES):
        length = _frame(head[at : at + 4])
        if not length or head[at + 1 : at + 2] != first:
            return False
        at += length
    return True


def _frame(header: bytes) -> int:
    """Return the length in bytes of a frame of MPEG audio; 0 if the header is invalid."""
    if len(header) < 4 or header[0] != 0xFF or header[1] < 0xE0:
        return 0
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)
    rate, sample, padding = header[2] >> 4, header[2] >> 2 & 3, header[2] >> 1 & 1
    if version == 1 or layer == 4 or not 0 < rate < 15 or sample == 3:
        return 0
    bits = _RATES[1 if version == 3 else 2, layer][rate - 1] * 1000
    samples = _SAMPLES[sample] >> {3: 0, 2: 1, 0: 2}[version]
    if layer == 1:
        return (12 * bits // samples + padding) * 4
    half = layer == 3 and version != 3
    return (72 if half else 144) * bits // samples + padding
