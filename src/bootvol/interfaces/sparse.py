"""Interfaces of streams and readers that know without reading where zeros are."""

from __future__ import annotations

from collections.abc import Sequence

from zope.interface import Interface

from bootvol.model import Extent


class ISparse(Interface):
    """Optional interface of volume readers and, with :meth:`ISparseStream.skip`, of image streams.

    The provider knows without reading where zeros are.  The core does not read or write these
    zeros.
    """

    async def extents(offset: int, length: int) -> Sequence[Extent]:
        """Return where zeros are.  Quick for any length, with bounded memory.

        The extents follow one another, beginning at ``offset``.  Their number and lengths are free.
        They may end before the range ends: the core then asks for the rest.  The last extent may
        extend beyond the range.  An extent of data may contain zeros.  An extent of zeros must read
        as zeros at the moment of the call.

        :param offset: bytes from the start of the volume or image.
        :param length: bytes, at least 1.  The range lies within the volume or image.
        :returns: at least one extent.
        :raises bootvol.errors.BackendFailed: if the device fails, or the reader is closed.
        :raises bootvol.errors.SourceFailed: if the source fails, or the stream is closed.
        """


class ISparseStream(ISparse):
    """Optional interface of an image stream of known size that knows where zeros are."""

    def skip(length: int) -> None:
        """Skip bytes that :meth:`ISparse.extents` reported as zeros, without reading them.

        The next read returns the bytes after them.  Does not block.  The core does not call this
        method during a read.

        :param length: number of bytes, at most up to the end of the image.
        """
