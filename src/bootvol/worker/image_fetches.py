"""Downloads the bytes of one image from a source into a store."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import attrs
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from bootvol.clocks import sleep
from bootvol.errors import (
    DigestMismatch,
    ImageCorrupt,
    ImageLengthUnknown,
    ImageNotFound,
    ImportFailed,
    SourceRefused,
)
from bootvol.imaging.bandwidth import Bandwidth
from bootvol.imaging.source_size import SourceSize, has_ended
from bootvol.imaging.uploads import PassingImage
from bootvol.imaging.wrapping import Wrapping
from bootvol.interfaces import IImageSource, IImageStore, IImageStream, IStagedUpload
from bootvol.model import Digest, Image, ImageRecord
from bootvol.shortage import short_of
from bootvol.threads import Threads
from bootvol.worker.lane_place import LanePlace, YieldingStream
from bootvol.worker.retries import Tries, pause_after

#: Bytes of a download in memory.
_BUFFER: Final = 1024 * 1024
#: Errors that may be temporary once a part of the image has been received.
_MAY_PASS: Final = (ImageNotFound, SourceRefused)


class Removed(Exception):
    """The image was removed from its store."""


class Download:
    """The download of an image into a store: the work of a job in the store's lane.

    :ivar record: the image's record.
    :ivar image: the image of the source; None if the request names none.
    :ivar received: number of bytes received from the source, with those of attempts that failed.
    """

    kind = backend = None

    def __init__(self, record: ImageRecord, image: Image | None) -> None:
        self.record = record
        self.image = image
        self.tenant = record.owner
        self.source = None if image is None else image.source
        self.lane_place = LanePlace()
        self.received = 0

    def mark(self) -> object:
        """See :meth:`bootvol.worker.tasks.task.Task.mark`."""
        return self.received

    def done(self) -> int:
        """See :meth:`bootvol.worker.tasks.task.Task.done`."""
        return self.received


@attrs.frozen
class Fetcher:
    """Downloads images.

    :ivar source: returns an image source by name.
    :ivar bandwidth: the limit of the bytes that the daemon reads from sources.
    :ivar threads: the threads that hash.
    :ivar retries: limit of successive attempts without new bytes.
    """

    source: Callable[[str], IImageSource]
    bandwidth: Bandwidth
    threads: Threads
    clock: IReactorTime
    retries: int

    async def fetch(self, store: IImageStore, download: Download, image: Image) -> None:
        """Download an image; afterwards the record is active.

        After a failure and a cancellation, the store has none of the bytes.  The download has no
        place in its lane while the download pauses, and gives way to other tenants.

        :param image: the image of the source.
        :raises Removed: if somebody removed the record.
        :raises bootvol.errors.ImageConflict: if another upload of the record runs, or the record
            has bytes.
        :raises bootvol.errors.BootvolError: if the download fails for good.
        """
        received = _Received(store, download, image, self.threads)
        await received.begin()
        try:
            await self._fetch(received, image)
        except BaseException:
            await received.abort()
            raise

    async def _fetch(self, received: _Received, image: Image) -> None:
        sizes = SourceSize(image.size_bytes, image.validator, by_digest=image.digest is not None)
        tries = Tries(self.retries)
        begun = doubted = False
        while True:
            start = received.done
            try:
                await self._attempt(received, image, sizes)
                return await received.finish()
            except (DigestMismatch, ImageCorrupt):
                # Perhaps an earlier part was wrong: try once more from the first byte.
                if not received.is_joined or doubted:
                    raise
                doubted = True
                tries = Tries(self.retries)
                await received.start_over()
            except (ImportFailed, ImageNotFound) as error:
                begun = begun or received.done > 0
                may_pass = error.retryable or (begun and isinstance(error, _MAY_PASS))
                if not may_pass or short_of(error) or not tries.go_on(start, received.done):
                    raise
                # The frames of the traceback hold the buffer.
                error.with_traceback(None)
                pause = max(pause_after(tries.fruitless), getattr(error, "retry_after", 0.0))
                await received.download.lane_place.rest(sleep(self.clock, pause))

    async def _attempt(self, received: _Received, image: Image, sizes: SourceSize) -> None:
        """Receive the image, or its rest.

        :raises ImportFailed: if the source breaks off, or no volume can be made of the bytes.
        """
        if received.is_broken:
            await received.start_over()
        source = self.source(image.source)
        offset = received.done if received.validator is not None else 0
        opened = await source.open(image, offset, received.validator if offset else None)
        try:
            stream = sizes.hold(self.bandwidth.limited(image.source, opened))
            if stream.offset != received.done:
                await received.start_over()
            received.joins(stream.validator)
            buffer = memoryview(bytearray(_BUFFER))
            counted = _Counted(stream, received.download)
            yielding = YieldingStream(counted, received.download.lane_place, self.clock)
            while count := await yielding.read_into(buffer):
                await received.take(buffer[:count])
            if not has_ended(stream) and image.digest is None:
                raise ImageLengthUnknown
        finally:
            await opened.close()


@implementer(IImageStream)
class _Counted(Wrapping):
    """A stream that counts the bytes of a download."""

    def __init__(self, stream: IImageStream, download: Download) -> None:
        super().__init__(stream)
        self._download = download

    async def read_into(self, target: memoryview) -> int:
        """See :meth:`bootvol.interfaces.IImageStream.read_into`."""
        count = await self.stream.read_into(target)
        self._download.received += count
        return count


class _Received:
    """The received bytes of an image, on their way to the store.

    :ivar done: number of the received bytes.
    :ivar validator: the validator of the stream of these bytes.
    :ivar download: the download.
    :ivar is_joined: whether the bytes came in several parts.
    :ivar is_broken: whether a part of the bytes may be missing in the store.
    """

    def __init__(
        self, store: IImageStore, download: Download, image: Image, threads: Threads
    ) -> None:
        self._store = store
        self.download = download
        self._record = download.record
        self._image = image
        self._threads = threads
        self._upload: IStagedUpload | None = None
        self._reset()

    def _reset(self) -> None:
        stated = self._image.digest
        self._passing = PassingImage(self._record.disk_format or "raw")
        self._hash = None if stated is None else hashlib.new(stated.algorithm)
        self.done = 0
        self.validator: str | None = None
        self.is_joined = self.is_broken = False

    async def begin(self) -> None:
        """Begin to send bytes to the store."""
        with _removal():
            self._upload = await self._store.upload(self._record.id, self._image.size_bytes)

    async def start_over(self) -> None:
        """Drop all bytes."""
        await self.abort()
        self._reset()
        await self.begin()

    def joins(self, validator: str | None) -> None:
        """Note that the next bytes come from another stream."""
        self.is_joined = self.is_joined or self.done > 0
        self.validator = validator

    async def take(self, data: memoryview) -> None:
        """Inspect and store the next bytes.

        :raises ImportFailed: if the bytes cannot be those of an image, or the store fails.
        """
        assert self._upload is not None  # noqa: S101 - for mypy
        self.is_broken = True
        await self._threads.run(self._inspect, data)
        with _removal():
            await self._upload.write(data)
        self.is_broken = False
        self.done += len(data)

    def _inspect(self, data: memoryview) -> None:
        self._passing.take(data)
        if self._hash is not None:
            self._hash.update(data)

    async def finish(self) -> None:
        """Make the image active.

        :raises DigestMismatch: if the source states another digest.
        :raises ImportFailed: if the bytes are not an image, or the store fails.
        """
        assert self._upload is not None  # noqa: S101 - for mypy
        data = await self._threads.run(self._passing.finish)
        stated = self._image.digest
        if stated is not None and self._hash is not None:
            _check_digest(stated, self._hash.hexdigest())
        self.is_broken = True
        with _removal():
            await self._upload.finish(data)

    async def abort(self) -> None:
        """Drop all bytes, and end the upload."""
        upload, self._upload = self._upload, None
        if upload is not None:
            await upload.abort()


def _check_digest(stated: Digest, found: str) -> None:
    """Compare the digest of the bytes with the stated one.

    :raises DigestMismatch: if the digests differ.
    """
    if found != stated.value:
        raise DigestMismatch(
            f"The {stated.algorithm} of the received image is {found}, not {stated.value}."
        )


@contextmanager
def _removal() -> Iterator[None]:
    """Tell a removed record from an image that the source lacks.

    :raises Removed: if the store has the record no more.
    """
    try:
        yield
    except ImageNotFound:
        raise Removed from None
