"""An open volume.

Each read and write is a blocking call of the library in a thread of its own. The library's
asynchronous calls would need a thread, too, since they copy the data before they return. They
also call Python from the library's threads, while the reactor may already close the image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from zope.interface import implementer

from bootvol.errors import BackendFailed
from bootvol.interfaces import ISparse, IVolumeReader, IVolumeWriter
from bootvol.model import Extent
from bootvol_plugins.rbd.bindings import Image
from bootvol_plugins.rbd.cluster import Cluster, Pool

#: The most bytes to zero in one call. Each call must end within the time limit.
_PIECE: Final = 256 * 1024 * 1024
#: The bytes to search for zeros in one call. Without a valid object map the library asks the
#: cluster about each object of the range.
_WINDOW: Final = 64 * 1024**3


@implementer(IVolumeWriter, IVolumeReader, ISparse)
class OpenImage:
    """An image, open for writing or for reading.

    :param pool: the pool that opened the image.
    :param image: the library's image.
    :param size: the image's size in bytes.
    :param name: the image's name in errors.
    """

    def __init__(self, cluster: Cluster, pool: Pool, image: Image, size: int, name: str) -> None:
        pool.uses += 1
        self._cluster = cluster
        self._pool = pool
        self._image: Image | None = image
        self._size = size
        self._name = name

    async def write(self, offset: int, data: memoryview) -> None:
        """See :meth:`bootvol.interfaces.IVolumeWriter.write`."""
        image = self._open_image()
        with self._cluster.writing(self._pool):
            await self._cluster.run_on(
                self._pool,
                f"Writing {self._name} failed",
                # The bindings accept bytes only, so this copies the data once.
                lambda _: image.write(bytes(data), offset),
            )

    async def zero(self, offset: int, length: int) -> None:
        """See :meth:`bootvol.interfaces.IVolumeWriter.zero`.

        A discard would not do: the library leaves ranges of less than 64 KiB unchanged.
        """
        image = self._open_image()
        end = offset + length
        for start in range(offset, end, _PIECE):
            count = min(_PIECE, end - start)
            with self._cluster.writing(self._pool):
                await self._cluster.run_on(
                    self._pool,
                    f"Zeroing {self._name} failed",
                    lambda _, start=start, count=count: image.write_zeroes(start, count),  # type: ignore[misc]
                )

    async def flush(self) -> None:
        """See :meth:`bootvol.interfaces.IVolumeWriter.flush`."""
        image = self._open_image()

        def flushed(_: Callable[..., int]) -> None:
            image.flush()
            if image.size() < self._size:
                raise BackendFailed(f"{self._name} has lost bytes: the volume became smaller.")

        await self._cluster.run_on(self._pool, f"Flushing {self._name} failed", flushed)

    async def read_into(self, offset: int, target: memoryview) -> None:
        """See :meth:`bootvol.interfaces.IVolumeReader.read_into`."""
        image = self._open_image()
        count = len(target)
        found = await self._cluster.run_on(
            self._pool, f"Reading {self._name} failed", lambda _: image.read(offset, count)
        )
        if len(found) != count:
            raise BackendFailed(f"Reading {self._name} failed: the volume ends too early.")
        target[:] = found

    async def extents(self, offset: int, length: int) -> Sequence[Extent]:
        """See :meth:`bootvol.interfaces.ISparse.extents`.

        The image's object map tells which whole objects exist. Missing objects read as zeros.
        """
        image = self._open_image()
        end = offset + min(length, _WINDOW)

        def look(_: Callable[..., int]) -> list[tuple[int, int]]:
            found: list[tuple[int, int]] = []

            def take(start: int, count: int, exists: bool) -> None:
                if exists:
                    found.append((start, start + count))

            image.diff_iterate(
                offset, end - offset, None, take, include_parent=True, whole_object=True
            )
            return found

        what = f"Reading {self._name} failed"
        return _around(await self._cluster.run_on(self._pool, what, look), offset, end)

    async def close(self) -> None:
        """See :meth:`bootvol.interfaces.IVolumeWriter.close`.

        If the close does not end in time, the library keeps the image.
        """
        image, self._image = self._image, None
        if image is not None:
            await self._cluster.close_image(self._pool, f"Closing {self._name} failed", image)

    def _open_image(self) -> Image:
        if self._image is None:
            raise BackendFailed(f"{self._name} cannot be used: the volume is closed.")
        return self._image


def _around(data: Iterable[tuple[int, int]], offset: int, end: int) -> list[Extent]:
    """Return the extents of a range, in bytes.

    :param data: ranges with data, as pairs of start and end.
    """
    found: list[Extent] = []
    at = offset
    for start, stop in sorted(data):
        start, stop = max(start, at), min(stop, end)
        if start < stop:
            if start > at:
                found.append(Extent(start - at, zero=True))
            found.append(Extent(stop - start, zero=False))
            at = stop
    if at < end:
        found.append(Extent(end - at, zero=True))
    return found
