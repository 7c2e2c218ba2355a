"""Holds the stated lengths of an image against the bytes that come.

A body in chunks, or one that ends with its connection (RFC 9112, section 6.3), can end too soon
without any sign: a proxy closes such a body properly after its own source broke off.  Then only an
earlier answer shows the loss.
"""

from __future__ import annotations

from zope.interface import implementer

from bootvol.errors import ImageCorrupt, ImageTruncated, SourceFailed
from bootvol.imaging.wrapping import Wrapping
from bootvol.interfaces import IImageStream, IOpenEndedStream
from bootvol.model import Import


class SourceSize:
    """The length that the source has stated last for the image of one import.

    :ivar size: size of the image in bytes, packed if the image is; None if not stated yet.
    :ivar validator: validator of the image with this size; None if unknown.
    :param by_digest: whether the source states a digest.
    """

    def __init__(
        self, size: int | None = None, validator: str | None = None, *, by_digest: bool = False
    ) -> None:
        self.size = size
        self.validator = validator
        self._by_digest = by_digest

    @classmethod
    def of(cls, task: Import) -> SourceSize:
        """Return the statements that an import's row knows."""
        image = task.image
        by_digest = image.digest is not None
        if task.stated_size is not None:
            return cls(task.stated_size, task.stated_validator, by_digest=by_digest)
        return cls(image.size_bytes, image.validator, by_digest=by_digest)

    def hold(self, stream: IImageStream) -> IImageStream:
        """Return a stream that fails if it ends before the stated length.

        Statements about another image, with another validator, are dropped.  Without validators
        nothing proves another image, so the statements stay until the source states another size.

        A whole image may be longer than stated before: a server may have stated the length of the
        first byte as the size of the image.  The whole image may also be shorter, because a new
        image may have replaced the old one, unless equal validators prove the same image.  With a
        digest, the digest decides.

        :raises SourceFailed: if the source now states less of the same image, as a proxy does that
            kept a part.  Without a validator, the rest of an image counts as of the same image.
        :raises ImageCorrupt: if the rest of the image belongs to a longer image.
        """
        is_proven = bool(stream.validator) and stream.validator == self.validator
        if self.validator and stream.validator and not is_proven:
            self.size = None
        self.validator = stream.validator or self.validator
        before, now = self.size, stream.size
        if now is None:
            return stream if before is None else _Held(stream, before)
        told = f"The source now states {now} bytes for the image, but stated {before} before"
        if before is not None and now < before:
            if stream.offset or (is_proven and not self._by_digest):
                raise SourceFailed(f"{told}.")
            # The old validator was of the longer image.
            self.validator = stream.validator
        self.size = now
        if before is not None and now > before and stream.offset:
            raise ImageCorrupt(f"{told}: the image has changed.")
        return stream


def has_ended(stream: IImageStream) -> bool:
    """Tell whether the end of a stream is known to be the end of the image."""
    return not IOpenEndedStream.providedBy(stream) or IOpenEndedStream(stream).proven


@implementer(IOpenEndedStream)
class _Held(Wrapping):
    """A stream without a length of its own, and the length stated before.

    :param least: number of bytes that the image must have.
    """

    def __init__(self, stream: IImageStream, least: int) -> None:
        super().__init__(stream)
        self._least = least
        self._at = stream.offset

    @property
    def proven(self) -> bool:
        """See :class:`bootvol.interfaces.IOpenEndedStream`."""
        return has_ended(self.stream) or self._at == self._least

    async def read_into(self, target: memoryview) -> int:
        """See :meth:`bootvol.interfaces.IImageStream.read_into`."""
        count = await self.stream.read_into(target)
        self._at += count
        if count < len(target) and self._at < self._least:
            short = ImageTruncated(f"The source sent {self._at} of {self._least} bytes.")
            short.came = count
            raise short
        return count
