"""Where zeros are, for streams and readers that know without reading."""

from __future__ import annotations

from collections.abc import Sequence

from zope.interface import Interface

from bootvol.model import Extent


class ISparse(Interface):
    """Optional for a volume's reader, and with :meth:`ISparseStream.skip` for an image's stream.

    A provider knows, without reading, where zeros are.  The core neither reads nor writes them.
    """

    async def extents(offset: int, length: int) -> Sequence[Extent]:
        """Tell where zeros are.  Quick at any length, and bounded in memory.

        Extents follow one another from ``offset`` on, in any number, of any length.  They may end
        before the range does: the core asks again for the rest; the last one may reach beyond.
        Data may be told of what is zero; zeros are told only of what a read at this moment would
        give as zeros.

        :param offset: bytes from the start of the volume or image.
        :param length: bytes, at least 1; the range ends within the volume or image.
        :returns: at least one extent.
        :raises bootvol.errors.BackendFailed: the device failed, or the reader is closed.
        :raises bootvol.errors.SourceFailed: the source failed, or the stream is closed.
        """


class ISparseStream(ISparse):
    """Optional for an image's stream of known size that knows where zeros are."""

    def skip(length: int) -> None:
        """Pass over bytes that :meth:`ISparse.extents` told to be zeros, without reading them.

        The next read gives the bytes after them.  Does not block.  Not called while a read is
        under way.

        :param length: bytes; at most those up to the image's end.
        """
