"""Interfaces of image sources and of their image streams."""

from __future__ import annotations

from collections.abc import Sequence

from zope.interface import Attribute, Interface

from bootvol.model import Caller, Image


class IImageStream(Interface):
    """The bytes of one image.  One reader pulls them in order."""

    size: int | None = Attribute("Size of the whole image in bytes; None if unknown.")
    offset: int = Attribute("First byte of this stream, counted from the start of the image.")
    validator: str | None = Attribute(
        "A text that changes with the image's bytes, such as an ETag; None if the source has none."
        "  Of a file's times, only st_ctime changes with each write."
    )

    async def read_into(target: memoryview) -> int:
        """Fill ``target`` with the next bytes.

        The reader sets the pace: between calls the stream fetches at most a small, bounded amount.
        Only one call runs at a time.

        :param target: writable memory, owned by the caller.
        :returns: the number of bytes: ``len(target)``, or fewer at the end of the image, or 0 after
            the end.
        :raises bootvol.errors.ImageTruncated: if the image ends before its stated size.
        :raises bootvol.errors.SourceFailed: if the source breaks off.  Both errors may state in
            ``came`` how many bytes ``target`` already holds.  The core does not ask for these bytes
            again.
        """

    async def close() -> None:
        """Release the file and the connection.  Idempotent."""


class IFileStream(Interface):
    """Optional interface of a stream whose image is, byte for byte, a file on this machine."""

    def fileno() -> int:
        """Return the file's descriptor, open for reading until the stream is closed.

        The descriptor belongs to the stream: no caller closes it, moves its position or changes its
        flags.

        :raises bootvol.errors.SourceFailed: if the stream is closed.
        """

    async def check() -> None:
        """Check that nobody has written to the file since the stream was opened.

        :raises bootvol.errors.SourceFailed: if the file has changed.  The bytes that were read may
            then be neither the old content nor the new one.
        """


class ILocatedStream(Interface):
    """Optional interface of a stream whose image may already be stored beside the volumes."""

    location: str | None = Attribute(
        "URL of a place with exactly these bytes, which never change there; None if unknown."
        "  In Ceph, the form of Glance: rbd://FSID/POOL/IMAGE/SNAPSHOT, with percent-encoded parts."
    )


class IOpenEndedStream(IImageStream):
    """Optional interface of a stream that cannot always tell the end from a lost connection."""

    proven: bool = Attribute(
        "Whether the reached end is known to be the end of the image.  True before the end."
    )


class IPrefixedStream(Interface):
    """Optional interface of a stream whose source may send bytes before the stream's offset.

    The stream drops these bytes.  The core then does not read many small parts of the image.
    """

    prefix: int = Attribute("Number of bytes that the source sends before the stream's offset.")


class IPrefetchingStream(IImageStream):
    """Optional interface of a stream that can fetch bytes before the reader asks for them.

    The core lends the memory, and so bounds and counts the memory of all imports.
    """

    mixed: bool = Attribute(
        "Whether the bytes came from several servers, which may have different images. After wrong"
        " bytes, the core then opens the image once more."
    )

    def lend(memory: memoryview) -> None:
        """Lend memory for such bytes.  Without memory, the stream fetches no bytes ahead.

        The core calls this method at most once, before the first read.

        :param memory: writable memory of any size, for the stream alone until its end.
        """


class IImageSource(Interface):
    """A place that images come from."""

    name: str = Attribute("The operator's name for this source.")

    async def images(caller: Caller) -> Sequence[Image]:
        """List the images that ``caller`` may use, sorted by id.

        A source that cannot list all of its images (URLs) returns an empty list.

        :raises bootvol.errors.SourceFailed: if the source does not answer.
        """

    async def find(caller: Caller, reference: str) -> Image:
        """Find the image that ``reference`` names in this source.

        :param reference: an id or a URL from a client: hostile until proven otherwise.
        :raises bootvol.errors.ImageNotFound: if the reference means nothing to this source.
            Another source may know the image.
        :raises bootvol.errors.InvalidImageRef: if the reference is meant for this source, but is
            not allowed.
        :raises bootvol.errors.ImageNotReady: if the source does not have the whole image yet.
        :raises bootvol.errors.ImageUnusable: if the source lets nobody use the image.
        :raises bootvol.errors.UnsupportedFormat: if the image is known to have an unsupported
            format.
        :raises bootvol.errors.Unauthorized: if the source checks callers itself, and does not know
            the caller by :attr:`bootvol.model.Caller.token`.
        :raises bootvol.errors.Forbidden: if the source checks callers itself, and the caller may
            not have the image.
        :raises bootvol.errors.SourceFailed: if the source does not answer.
        :raises bootvol.errors.SourceRefused: if the source refuses to give the image out.
        """

    async def open(image: Image, offset: int = 0, validator: str | None = None) -> IImageStream:
        """Open an image that :meth:`find` returned, perhaps hours or a restart ago.

        The caller is no longer known.  :meth:`find` has already settled the right to the image.

        :param offset: where the stream should begin, in bytes from the start of the image.  The
            stream begins at 0 if the source cannot begin at ``offset``, or if the image no longer
            has this ``validator``.  The ``offset`` of the stream states where it begins.
        :param validator: validator of the stream whose bytes up to ``offset`` were read; None if
            ``offset`` is 0.
        :raises bootvol.errors.ImageNotFound: if the image no longer exists.
        :raises bootvol.errors.SourceFailed: if the source does not answer.
        """


class IUrlSource(IImageSource):
    """Optional interface of a source whose references are URLs, with ``://``, and nothing else.

    Callers may then give an image in a store the bytes at such a URL.  The rules of the source for
    URLs and addresses apply.
    """


class IPartSource(IImageSource):
    """Optional interface of a source that may give a short part of an image at less cost."""

    async def open_part(
        image: Image, offset: int, length: int, validator: str | None = None
    ) -> IImageStream:
        """Open a part of an image, as :meth:`IImageSource.open` opens the rest of an image.

        The caller reads at most ``length`` bytes.  The stream may end behind them.

        :param length: number of bytes, at least 1.
        :param validator: None also if the bytes may be of any version of the image.
        :raises bootvol.errors.ImageNotFound: if the image no longer exists.
        :raises bootvol.errors.SourceFailed: if the source does not answer.
        """
