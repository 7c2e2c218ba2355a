"""Decompresses the clusters of a qcow2 image."""

from __future__ import annotations

from typing import Final, cast

from backports import zstd

from bootvol.errors import ImageCorrupt

#: Raw deflate with a window of 4 KiB (qcow2 specification, "Compressed Clusters Descriptor").
_WINDOW_BITS: Final = -12
#: The most zstd frames of a cluster.
_MOST_FRAMES: Final = 4
#: The largest window of a zstd frame: 8 MiB (RFC 8878, 3.1.1.1.2 "Window_Descriptor").
_WINDOW: Final[dict[int, int]] = {zstd.DecompressionParameter.window_log_max: 23}


def decompress(data: memoryview, target: memoryview, *, use_zstd: bool) -> int:
    """Decompress one cluster.  Blocks, without the interpreter's lock.

    :param data: the compressed cluster, perhaps with foreign bytes behind.
    :param target: receives the cluster, all of it.
    :returns: the length of ``target``.
    :raises bootvol.errors.ImageCorrupt: if ``data`` is not a whole compressed cluster.
    """
    try:
        out = _inflated_by_zstd(data, len(target)) if use_zstd else _inflated(data, len(target))
    except (zstd.ZstdError, EOFError) as error:
        raise _refusal() from error
    if len(out) != len(target):
        raise _refusal()
    target[:] = out
    return len(out)


def _inflated(data: memoryview, length: int) -> bytes:
    # Import late: the import takes half a MiB, and not all daemons read such images.
    from isal import isal_zlib

    try:
        return bytes(isal_zlib.decompressobj(_WINDOW_BITS).decompress(data, length))
    except cast("type[Exception]", isal_zlib.error) as error:
        raise _refusal() from error


def _inflated_by_zstd(data: memoryview, length: int) -> bytes:
    """Decompress frames until ``length`` bytes came, as QEMU does.

    QEMU writes one frame.  A hostile cluster may consist of thousands of empty frames.
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


def _refusal() -> ImageCorrupt:
    return ImageCorrupt("A compressed cluster of the qcow2 image cannot be decompressed.")
