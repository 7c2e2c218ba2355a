"""The objects of a pool and of an image. Everything here blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bootvol.model import GIB
from bootvol_plugins.rbd.bindings import Image
from bootvol_plugins.rbd.cluster import Pool

#: The object that lists deleted images that still have clones, as ``id_`` and the image's id.
#: (The bindings' own listing of the trash raises IndexError on such an image.)
TRASH: Final = "rbd_trash"
#: Bytes of data that a cluster removes in seconds.
_QUICK: Final = 16 * GIB
#: The bytes to count in one call. The library calls Python for each object with data.
_WINDOW: Final = 64 * GIB
#: The most calls for one image. Each call reads the whole object map.
_CALLS: Final = 256


def make_trash(pool: Pool) -> None:
    """Make the object for the trash, if the pool has none.

    Ceph's library makes the object at the first removal of an image. A full cluster refuses the
    object, and then no removal can make room.
    """
    pool.ioctx.write(TRASH, b"")


def is_quickly_removed(image: Image, beat: Callable[[], object]) -> bool:
    """Return whether an image has so little data that its removal needs no reports of progress.

    The library reports each object, also the missing ones.  The 262,144 reports of an empty image
    of 1 TiB take ten seconds, in which they slow the whole daemon down.  Without reports, the
    removal of an empty image of 16 TiB takes three seconds.

    :param beat: called after each part of the count, to show progress.
    """
    if image.flags():
        # The object map is not valid: asking for the data would take as long as the removal.
        return False
    data = 0

    def count(_: int, length: int, exists: bool) -> None:
        nonlocal data
        data += length if exists else 0

    size = image.size()
    window = max(_WINDOW, -(-size // _CALLS))
    for start in range(0, size, window):
        length = min(window, size - start)
        image.diff_iterate(start, length, None, count, include_parent=False, whole_object=True)
        beat()
        if data > _QUICK:
            return False
    return True
