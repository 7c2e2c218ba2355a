"""The contract suite of :class:`bootvol.interfaces.IImageSource`."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import attrs
import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from bootvol.clocks import sleep
from bootvol.errors import ImageNotFound, InvalidImageRef, SourceFailed
from bootvol.interfaces import (
    IFileStream,
    IImageSource,
    IImageStore,
    IImageStream,
    ILocatedStream,
    IOpenEndedStream,
    IPartSource,
    ISparseStream,
    IUrlSource,
    PluginContext,
)
from bootvol.model import Caller, Digest, Image
from bootvol.testing.contract import Contract
from bootvol.testing.volumes import cancelled

CALLER: Final = Caller("someone", "tenant", frozenset())

#: References that no source may find.
HOSTILE: Final = (
    "",
    ".",
    "..",
    "/",
    "../etc/passwd",
    "/etc/passwd",
    "file:///etc/passwd",
    "http://127.0.0.1:1/../x",
    "http://user@127.0.0.1:1/",
    "http://[::1",
    "http://",
    "gopher://127.0.0.1/",
    "a\0b",
    "a\nb",
    "\ud800",
    "é" * 300,
    "x" * 5000,
)


@attrs.frozen
class Subject:
    """A source under test, with facts for the suite.

    :ivar known: a reference that the source finds, and the bytes of its image: at least 1 MiB, and
        not a multiple of 4 KiB.
    :ivar lists: whether :meth:`IImageSource.images` lists the image.
    :ivar caller: a caller who may use the image.
    """

    source: IImageSource
    known: tuple[str, bytes]
    lists: bool = True
    caller: Caller = CALLER


async def read_all(stream: IImageStream, size: int) -> bytes:
    """Read a stream to its end through one buffer of ``size`` bytes, and close the stream."""
    found = bytearray()
    buffer = memoryview(bytearray(size))
    try:
        while count := await stream.read_into(buffer):
            found += buffer[:count]
            if count < size:
                assert await stream.read_into(buffer) == 0, "only the last read is short"
                break
    finally:
        await stream.close()
    return bytes(found)


async def _descriptors(context: PluginContext, wanted: int) -> int:
    """Count the open descriptors of this process, after giving connections time to end."""
    for _ in range(20):
        await sleep(context.reactor, 0.05)
        count = len(list(Path("/proc/self/fd").iterdir()))
        if count <= wanted:
            break
    return count


class ImageSourceContract(Contract):
    """The tests for every source.  Subclasses provide the fixture ``subject``."""

    @ensureDeferred
    async def test_provides_the_interface(self, subject: Subject) -> None:
        verifyObject(IImageSource, subject.source)
        assert subject.source.name == "under-test"

    @ensureDeferred
    async def test_finds_and_describes(self, subject: Subject) -> None:
        reference, content = subject.known
        image = await subject.source.find(subject.caller, reference)
        assert image.source == subject.source.name
        assert image.id
        assert image.name
        assert image.size_bytes in (None, len(content))

    @ensureDeferred
    async def test_states_the_right_digest_if_any(self, subject: Subject) -> None:
        reference, content = subject.known
        stated = (await subject.source.find(subject.caller, reference)).digest
        if stated is not None:
            assert hashlib.new(stated.algorithm, content).hexdigest() == stated.value

    @ensureDeferred
    async def test_finds_again_by_the_id(self, subject: Subject) -> None:
        image = await subject.source.find(subject.caller, subject.known[0])
        assert await subject.source.find(subject.caller, image.id) == image

    @ensureDeferred
    async def test_lists_sorted(self, subject: Subject) -> None:
        listed = [image.id for image in await subject.source.images(subject.caller)]
        image = await subject.source.find(subject.caller, subject.known[0])
        assert listed == sorted(listed)
        assert (image.id in listed) is subject.lists

    @ensureDeferred
    async def test_unknown_and_hostile_references(self, subject: Subject) -> None:
        """No hostile reference finds an image.

        Break: `plugins/bootvol_plugins/directory_source.py`:
        `image_id = Names(found).meant(reference)` ->
        `image_id = Names(found).meant(reference) or next(iter(found))`.
        """
        for reference in HOSTILE:
            with pytest.raises((ImageNotFound, InvalidImageRef)):
                await subject.source.find(subject.caller, reference)

    @ensureDeferred
    async def test_references_of_a_source_of_urls(self, subject: Subject) -> None:
        if not IUrlSource.providedBy(subject.source):
            pytest.skip("the references of the source are not always URLs")
        reference, _ = subject.known
        assert "://" in reference
        assert "://" in (await subject.source.find(subject.caller, reference)).id
        name = reference.rpartition("/")[2]
        with pytest.raises((ImageNotFound, InvalidImageRef)):
            await subject.source.find(subject.caller, name)

    @pytest.mark.parametrize("size", [4096, 65536, 1024 * 1024, 8 * 1024 * 1024])
    @ensureDeferred
    async def test_sends_the_bytes(self, subject: Subject, size: int) -> None:
        reference, content = subject.known
        stream = await subject.source.open(await subject.source.find(subject.caller, reference))
        verifyObject(IImageStream, stream)
        assert stream.size in (None, len(content))
        assert await read_all(stream, size) == content

    @ensureDeferred
    async def test_opens_what_was_stored(self, subject: Subject) -> None:
        """Open an image after storing its description as plain values."""
        reference, content = subject.known
        stored = attrs.asdict(await subject.source.find(subject.caller, reference))
        digest = stored["digest"]
        image = Image(**{**stored, "digest": Digest(**digest) if digest else None})
        assert await read_all(await subject.source.open(image), 65536) == content

    @ensureDeferred
    async def test_goes_on_where_it_is_asked_to(self, subject: Subject) -> None:
        """Open at an offset.  A source may begin at 0 instead, and must say so."""
        reference, content = subject.known
        image = await subject.source.find(subject.caller, reference)
        first = await subject.source.open(image)
        await first.close()
        for offset in (0, 1, 65536, len(content) - 1, len(content)):
            stream = await subject.source.open(image, offset, first.validator)
            assert stream.offset in (0, offset)
            assert stream.size in (None, len(content))
            assert stream.validator == first.validator
            assert await read_all(stream, 65536) == content[stream.offset :]

    @ensureDeferred
    async def test_begins_anew_when_the_image_is_another(self, subject: Subject) -> None:
        reference, content = subject.known
        image = await subject.source.find(subject.caller, reference)
        for validator in ("not the one", "", None):
            stream = await subject.source.open(image, 4096, validator)
            assert stream.offset == 0
            assert await read_all(stream, 65536) == content

    @ensureDeferred
    async def test_streams_are_independent(self, subject: Subject) -> None:
        reference, content = subject.known
        image = await subject.source.find(subject.caller, reference)
        first, second = await subject.source.open(image), await subject.source.open(image)
        buffer = memoryview(bytearray(4096))
        assert await first.read_into(buffer) == 4096
        assert await read_all(second, 65536) == content
        assert content[4096:] == await read_all(first, 65536)

    @ensureDeferred
    async def test_gives_its_file_if_provided(self, subject: Subject) -> None:
        reference, content = subject.known
        stream = await subject.source.open(await subject.source.find(subject.caller, reference))
        if IFileStream.providedBy(stream):
            verifyObject(IFileStream, stream)
            file = IFileStream(stream)
            assert os.pread(file.fileno(), len(content) + 1, 0) == content
            await file.check()
            assert await read_all(stream, 65536) == content
            with pytest.raises(SourceFailed):
                file.fileno()
        await stream.close()

    @pytest.mark.parametrize("size", [4096, 1024 * 1024])
    @ensureDeferred
    async def test_passes_over_zeros_if_provided(self, subject: Subject, size: int) -> None:
        reference, content = subject.known
        image = await subject.source.find(subject.caller, reference)
        stream = await subject.source.open(image)
        if ISparseStream.providedBy(stream):
            verifyObject(ISparseStream, stream)
            sparse = ISparseStream(stream)
            assert stream.size == len(content)
            found = bytearray()
            while len(found) < len(content):
                told = await sparse.extents(len(found), len(content) - len(found))
                assert told, "at least one extent is told of"
                for extent in told:
                    assert extent.length > 0
                    length = min(extent.length, len(content) - len(found))
                    if extent.zero:
                        sparse.skip(length)
                        found += bytes(length)
                    else:
                        buffer = memoryview(bytearray(min(length, size)))
                        found += buffer[: await stream.read_into(buffer)]
                        if len(buffer) < length:
                            break  # Ask for the rest of the extent again.
            assert found == content
            assert await stream.read_into(memoryview(bytearray(size))) == 0
            await stream.close()
            with pytest.raises(SourceFailed):
                await sparse.extents(0, size)
        await stream.close()

    @ensureDeferred
    async def test_gives_parts_if_provided(self, subject: Subject) -> None:
        """Open parts in any order.  A source may begin at 0 instead, and must say so."""
        reference, content = subject.known
        if not IPartSource.providedBy(subject.source):
            return
        verifyObject(IPartSource, subject.source)
        source = IPartSource(subject.source)
        image = await source.find(subject.caller, reference)
        whole = await source.open(image)
        await whole.close()
        for validator in (whole.validator, None):
            for offset, length in ((0, 4096), (65536, 100_000), (1, 1), (len(content) - 7, 7)):
                part = await source.open_part(image, offset, length, validator)
                verifyObject(IImageStream, part)
                assert part.offset in (0, offset)
                assert part.validator == whole.validator
                assert part.size in (None, len(content))
                buffer = memoryview(bytearray(length))
                assert await part.read_into(buffer) == length
                assert buffer == content[part.offset :][:length]
                await part.close()
        part = await source.open_part(image, 4096, 10, "not the one")
        assert part.offset == 0
        await part.close()

    @ensureDeferred
    async def test_says_where_it_lies_if_provided(self, subject: Subject) -> None:
        stream = await subject.source.open(
            await subject.source.find(subject.caller, subject.known[0])
        )
        if ILocatedStream.providedBy(stream):
            verifyObject(ILocatedStream, stream)
            location = ILocatedStream(stream).location
            assert location is None or "://" in location
        await stream.close()

    @ensureDeferred
    async def test_says_whether_its_end_is_known_if_provided(self, subject: Subject) -> None:
        reference, _ = subject.known
        stream = await subject.source.open(await subject.source.find(subject.caller, reference))
        if IOpenEndedStream.providedBy(stream):
            verifyObject(IOpenEndedStream, stream)
            assert IOpenEndedStream(stream).proven, "its end has not been reached"
            await read_all(stream, 65536)
            assert isinstance(IOpenEndedStream(stream).proven, bool)
        await stream.close()

    @ensureDeferred
    async def test_close_at_any_time(self, subject: Subject) -> None:
        image = await subject.source.find(subject.caller, subject.known[0])
        unread = await subject.source.open(image)
        await unread.close()
        await unread.close()
        half_read = await subject.source.open(image)
        await half_read.read_into(memoryview(bytearray(4096)))
        await half_read.close()

    @ensureDeferred
    async def test_a_cancelled_opening_leaves_nothing_open(
        self, context: PluginContext, subject: Subject
    ) -> None:
        image = await subject.source.find(subject.caller, subject.known[0])
        await (await subject.source.open(image)).close()
        before = await _descriptors(context, 0)
        for _ in range(10):
            await cancelled(subject.source.open(image))
        assert await _descriptors(context, before) <= before

    @ensureDeferred
    async def test_a_cancelled_read_leaves_the_memory_alone(self, subject: Subject) -> None:
        image = await subject.source.find(subject.caller, subject.known[0])
        stream = await subject.source.open(image)
        buffer = bytearray(1024 * 1024)
        reading = Deferred.fromCoroutine(stream.read_into(memoryview(buffer)))
        reading.addErrback(lambda _failure: None)
        reading.cancel()
        await reading
        await stream.close()
        buffer[:] = bytes(len(buffer))
        again = await subject.source.open(image)
        await read_all(again, 65536)
        assert buffer == bytes(len(buffer))


def make_image_source_tests(
    make: Callable[[PluginContext, Path], Subject],
) -> type[ImageSourceContract]:
    """Return the contract suite of one source, for a test module to name.

    :param make: creates the subject from a context and an empty folder; called once per test.  The
        source must take its name from the context.
    """

    class TestImageSource(ImageSourceContract):
        @pytest.fixture
        def subject(self, context: PluginContext, tmp_path: Path) -> Subject:
            return make(context, tmp_path)

        def test_a_store_passes_the_suite_of_stores(self, subject: Subject) -> None:
            """A store has a larger suite: :mod:`bootvol.testing.image_stores`."""
            assert not IImageStore.providedBy(subject.source)

    return TestImageSource
