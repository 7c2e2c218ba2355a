"""Image sources, and the streams of their images."""

from __future__ import annotations

from collections.abc import Sequence

from zope.interface import Attribute, Interface

from bootvol.model import Caller, Image


class IImageStream(Interface):
    """The bytes of one image, pulled in order by one reader."""

    size: int | None = Attribute("Bytes from the start of the image to its end; None if unknown.")
    offset: int = Attribute("Where in the image this stream began, in bytes from its start.")
    validator: str | None = Attribute(
        "Changes whenever the image's bytes do (an ETag, say); None if the source cannot tell."
    )

    async def read_into(target: memoryview) -> int:
        """Fill ``target`` with the bytes that come next.

        The reader is the backpressure: while nobody awaits this, nothing is fetched beyond a
        small bounded remainder.  Not to be called twice at once.

        :param target: writable memory, which stays the caller's.
        :returns: the number of bytes, which is ``len(target)`` but at the end of the image;
            0 when there are no more.
        :raises bootvol.errors.ImageTruncated: the image ended before its stated size.
        :raises bootvol.errors.SourceFailed: the source broke off.  Both errors may say in ``came``
            how many bytes had been put into ``target`` by then: these are not asked for again.
        """

    async def close() -> None:
        """Let go of file and connection.  Idempotent."""


class IFileStream(Interface):
    """What a stream provides, too, whose image is one whole file on this machine, as it is."""

    def fileno() -> int:
        """Return the file's descriptor, open for reading until the stream is closed.

        It stays the stream's: nobody else closes it, moves its position or changes its flags.

        :raises bootvol.errors.SourceFailed: the stream has been closed.
        """

    async def check() -> None:
        """See that the file has not been written to since the stream was opened.

        :raises bootvol.errors.SourceFailed: it has, so that what was read of it may be neither what
            it held before nor what it holds now.
        """


class ILocatedStream(Interface):
    """What a stream provides, too, whose image may lie where volumes do."""

    location: str | None = Attribute(
        "A URL of where exactly these bytes lie, never to change; None if the source does not know."
        "  In Ceph it is as Glance states it: rbd://FSID/POOL/IMAGE/SNAPSHOT, all percent-encoded."
    )


class IOpenEndedStream(IImageStream):
    """What a stream may provide whose source cannot always tell the image's end from a break."""

    proven: bool = Attribute(
        "Whether the end that was reached is known to be the image's; True until it is reached."
    )


class IImageSource(Interface):
    """Where images come from."""

    name: str = Attribute("The name that the operator gave this source.")

    async def images(caller: Caller) -> Sequence[Image]:
        """List the images that ``caller`` may use, sorted by id.

        A source that cannot know them all (URLs) lists none.

        :raises bootvol.errors.SourceFailed: the source does not answer.
        """

    async def find(caller: Caller, reference: str) -> Image:
        """Find the image that ``reference`` means to this source.

        :param reference: an id or a URL, as a client sent it: hostile until proven otherwise.
        :raises bootvol.errors.ImageNotFound: it means nothing here; another source may know it.
        :raises bootvol.errors.InvalidImageRef: it is meant for this source but is not allowed.
        :raises bootvol.errors.ImageNotReady: the source does not have all of it yet.
        :raises bootvol.errors.ImageUnusable: the source does not let anybody use it.
        :raises bootvol.errors.UnsupportedFormat: it is known to be in a format that is not read.
        :raises bootvol.errors.Unauthorized: the source has a say of its own about callers, and does
            not know this one by :attr:`bootvol.model.Caller.token`.
        :raises bootvol.errors.Forbidden: it does, and the caller may not have the image.
        :raises bootvol.errors.SourceFailed: the source does not answer.
        :raises bootvol.errors.SourceRefused: it will not give the image out.
        """

    async def open(image: Image, offset: int = 0, validator: str | None = None) -> IImageStream:
        """Open an image that :meth:`find` returned, perhaps hours or a restart ago.

        There is no caller any more; that one may have the image was settled when it was found.

        :param offset: where the stream should begin, in bytes from the image's start.  A source
            that cannot begin there, or whose image is not the one of ``validator`` any more,
            begins at 0, and says so in the stream's ``offset``.
        :param validator: of the stream that was read up to ``offset``; None goes with offset 0.
        :raises bootvol.errors.ImageNotFound: it is no longer there.
        :raises bootvol.errors.SourceFailed: the source does not answer.
        """
