"""Decompresses the clusters of a qcow2 image."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, cast

from backports import zstd

from bootvol.errors import ImageCorrupt

if TYPE_CHECKING:
    import zstandard

#: Raw deflate with a window of 4 KiB (qcow2 specification, "Compressed Clusters Descriptor").
_WINDOW_BITS: Final = -12
#: The most zstd frames of a cluster.
_MOST_FRAMES: Final = 4
#: The largest window of a zstd frame: 8 MiB (RFC 8878, 3.1.1.1.2 "Window_Descriptor").
_WINDOW_LOG: Final = 23
_WINDOW: Final[dict[int, int]] = {zstd.DecompressionParameter.window_log_max: _WINDOW_LOG}


def inflate(data: memoryview, target: memoryview) -> int:
    """Decompress one cluster of deflate: see :meth:`.Guide.unpack`."""
    # Import late: the import takes half a MiB, and not all daemons read such images.
    from isal import isal_zlib

    try:
        out = bytes(isal_zlib.decompressobj(_WINDOW_BITS).decompress(data, len(target)))
    except cast("type[Exception]", isal_zlib.error) as error:
        raise _refusal() from error
    return _put(out, target)


class ZstdClusters:
    """Decompresses the clusters of one image.  Several threads may call at once.

    QEMU writes one frame with its size.  For such frames, a context of ``zstandard`` is used again
    and again: this takes half the time of a new context for each cluster.
    """

    def __init__(self) -> None:
        # Import late: the import takes 1.6 MiB, and not all daemons read such images.
        from zstandard import ZstdDecompressor, ZstdError, frame_content_size

        self._sizes = frame_content_size
        self._new = partial(ZstdDecompressor, max_window_size=1 << _WINDOW_LOG)
        self._errors = ZstdError
        self._spare: list[zstandard.ZstdDecompressor] = []

    def decompress(self, data: memoryview, target: memoryview) -> int:
        """Decompress one cluster of zstd: see :meth:`.Guide.unpack`."""
        out = self._of_one_frame(data, len(target))
        try:
            return _put(_of_frames(data, len(target)) if out is None else out, target)
        except (zstd.ZstdError, EOFError) as error:
            raise _refusal() from error

    def _of_one_frame(self, data: memoryview, length: int) -> bytes | None:
        """Decompress a frame that states ``length`` as its size; return None for other frames.

        Stated sizes take memory: no other size is safe here.
        """
        try:
            if self._sizes(data) != length:
                return None
            decoder = self._spare.pop() if self._spare else self._new()
            out = decoder.decompress(data, allow_extra_data=True)
        except self._errors:
            return None
        self._spare.append(decoder)
        return out


def _of_frames(data: memoryview, length: int) -> bytes:
    """Decompress frames until ``length`` bytes came, as QEMU does.

    A hostile cluster may consist of thousands of empty frames.
    """
    out = b""
    for _ in range(_MOST_FRAMES):
        if not data or len(out) == length:
            break
        decoder = zstd.ZstdDecompressor(options=_WINDOW)
        part = decoder.decompress(data, length - len(out))
        if not part and not decoder.eof:
            break
        out += part
        data = memoryview(decoder.unused_data)
    return out


def _put(out: bytes, target: memoryview) -> int:
    if len(out) != len(target):
        raise _refusal()
    target[:] = out
    return len(out)


def _refusal() -> ImageCorrupt:
    return ImageCorrupt("A compressed cluster of the qcow2 image cannot be decompressed.")
