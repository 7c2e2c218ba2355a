"""The metadata of our images. Everything here blocks."""

from __future__ import annotations

from typing import Final

from bootvol_plugins.rbd.bindings import Image

#: Metadata keys of our images: the mark, the size, and the number of images that reads go through.
MARK: Final = "bootvol"
SIZE: Final = "bootvol.size"
DEPTH: Final = "bootvol.depth"


def is_marked(image: Image, volume: str) -> bool:
    """Return whether an image is ours: a foreign clone of an image has the original's mark."""
    return metadata(image, MARK) == volume


def is_whole(image: Image) -> bool:
    """Return whether an image has at least its noted size. Old images have no noted size.

    An image is larger after a crash while the image became larger.
    """
    return image.size() >= int(metadata(image, SIZE) or 0)


def metadata(image: Image, key: str) -> str | None:
    """Return a value of an image's metadata; None if the image has no such key."""
    try:
        return str(image.metadata_get(key))
    except KeyError:
        return None
