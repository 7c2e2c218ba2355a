"""A volume that is open: its bytes go by the library's own asynchronous calls."""

from __future__ import annotations

from typing import Any, Final

from zope.interface import implementer

from bootvol.errors import BackendFailed
from bootvol.interfaces import IVolumeReader, IVolumeWriter
from bootvol_plugins.rbd.cluster import Cluster, Pool

#: The most that is zeroed at once, so that each piece can be waited for; bytes.
_PIECE: Final = 256 * 1024 * 1024


@implementer(IVolumeWriter, IVolumeReader)
class OpenImage:
    """An image, open for writing or for reading.

    :param pool: by which it was opened.
    :param image: of the library.
    :param name: what errors call it.
    """

    def __init__(self, cluster: Cluster, pool: Pool, image: Any, name: str) -> None:
        pool.uses += 1
        self._cluster = cluster
        self._pool = pool
        self._image: Any = image
        self._name = name

    async def write(self, offset: int, data: memoryview) -> None:
        """See :meth:`bootvol.interfaces.IVolumeWriter.write`."""
        image = self._open_image()
        with self._cluster.writing(self._pool):
            await self._cluster.complete(
                self._pool,
                f"Writing {self._name} failed",
                # The bindings take bytes alone: this copies once.
                lambda ended: image.aio_write(bytes(data), offset, ended),
            )

    async def zero(self, offset: int, length: int) -> None:
        """See :meth:`bootvol.interfaces.IVolumeWriter.zero`.

        Not by discarding: that leaves alone what is less than 64 KiB.
        """
        image = self._open_image()
        end = offset + length
        for start in range(offset, end, _PIECE):
            count = min(_PIECE, end - start)
            with self._cluster.writing(self._pool):
                await self._cluster.complete(
                    self._pool,
                    f"Zeroing {self._name} failed",
                    lambda ended, start=start, count=count: image.aio_write_zeroes(  # type: ignore[misc]
                        start, count, ended
                    ),
                )

    async def flush(self) -> None:
        """See :meth:`bootvol.interfaces.IVolumeWriter.flush`."""
        image = self._open_image()
        await self._cluster.complete(self._pool, f"Flushing {self._name} failed", image.aio_flush)

    async def read_into(self, offset: int, target: memoryview) -> None:
        """See :meth:`bootvol.interfaces.IVolumeReader.read_into`."""
        image = self._open_image()
        found = await self._cluster.complete(
            self._pool,
            f"Reading {self._name} failed",
            lambda ended: image.aio_read(offset, len(target), ended),
        )
        if len(found) != len(target):
            raise BackendFailed(f"Reading {self._name} failed: it ends before what was to be read.")
        target[:] = found

    async def close(self) -> None:
        """See :meth:`bootvol.interfaces.IVolumeWriter.close`.

        One that does not end is left to the library.
        """
        image, self._image = self._image, None
        if image is not None:
            await self._cluster.close_image(self._pool, f"Closing {self._name} failed", image)

    def _open_image(self) -> Any:
        if self._image is None:
            raise BackendFailed(f"Nothing can be done to {self._name}: it is closed.")
        return self._image
