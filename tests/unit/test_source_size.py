"""The stated lengths of an image, held against the bytes that come."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from zope.interface import implementer

from bootvol.errors import ImageCorrupt, ImageTruncated, SourceFailed
from bootvol.imaging.source_size import SourceSize, has_ended
from bootvol.interfaces import IImageStream, IOpenEndedStream
from bootvol.model import Digest, Image, Import
from bootvol.testing.sources import read_all


@implementer(IOpenEndedStream)
class Stream:
    """A stream of zeros, with an end that proves nothing."""

    proven = False

    def __init__(
        self, length: int, size: int | None, validator: str | None = "v", offset: int = 0
    ) -> None:
        self.size, self.offset, self.validator = size, offset, validator
        self._left = length

    async def read_into(self, target: memoryview) -> int:
        """See IImageStream."""
        count = min(self._left, len(target))
        self._left -= count
        return count

    async def close(self) -> None:
        """See IImageStream."""


def stream(*arguments: Any, **more: Any) -> IImageStream:
    """Return a stream."""
    made: Any = Stream(*arguments, **more)
    return made  # type: ignore[no-any-return]


async def length(held: IImageStream) -> int:
    """Return the number of bytes that a stream has."""
    return len(await read_all(held, 64))


@pytest.mark.parametrize("validator", ["v", None])
@ensureDeferred
async def test_a_stream_that_states_nothing_is_held_to_what_was_stated(
    validator: str | None,
) -> None:
    stated = SourceSize(100, "v")
    assert await length(stated.hold(stream(100, None, validator))) == 100
    assert await length(stated.hold(stream(101, None, validator))) == 101
    assert await length(stated.hold(stream(40, None, validator, offset=60))) == 40
    with pytest.raises(ImageTruncated, match="sent 99 of 100 bytes") as raised:
        await length(stated.hold(stream(99, None, validator)))
    assert raised.value.came == 99 - 64
    with pytest.raises(ImageTruncated, match="sent 99 of 100 bytes"):
        await length(stated.hold(stream(39, None, validator, offset=60)))


@ensureDeferred
async def test_a_stream_states_the_size_for_later_streams() -> None:
    stated = SourceSize()
    assert await length(stated.hold(stream(50, 100))) == 50
    with pytest.raises(ImageTruncated):
        await length(stated.hold(stream(49, None, offset=50)))


@ensureDeferred
async def test_another_image_has_another_size() -> None:
    stated = SourceSize(100, "v")
    assert await length(stated.hold(stream(10, None, "w"))) == 10
    # The size of the first image stays dropped.
    assert await length(stated.hold(stream(10, None, "v"))) == 10


@pytest.mark.parametrize(
    ("size", "offset", "digest", "error"),
    [
        (100, 0, False, None),
        (99, 0, False, SourceFailed),
        (101, 0, False, None),
        (99, 0, True, None),
        (100, 50, False, None),
        (99, 50, False, SourceFailed),
        (101, 50, False, ImageCorrupt),
        (101, 50, True, ImageCorrupt),
    ],
)
def test_statements_that_differ(
    size: int, offset: int, digest: bool, error: type[Exception] | None
) -> None:
    stated = SourceSize(100, "v", by_digest=digest)
    if error is not None:
        with pytest.raises(error, match=f"now states {size} bytes .* stated 100 before"):
            stated.hold(stream(0, size, offset=offset))
    if error is not SourceFailed:
        # A changed image is fetched again from its first byte.
        assert stated.hold(stream(0, size)).size == size
        with pytest.raises(SourceFailed):
            stated.hold(stream(0, size - 1, offset=offset or 1))


@pytest.mark.parametrize(("old", "new"), [(None, None), ("v", None), (None, "v")])
@ensureDeferred
async def test_a_shorter_image_without_a_proof_replaces_the_longer_one(
    old: str | None, new: str | None
) -> None:
    stated = SourceSize(100, old)
    assert stated.hold(stream(0, 99, new)).size == 99
    # From now on the new size counts.
    with pytest.raises(SourceFailed, match=r"now states 98 bytes .* stated 99 before"):
        stated.hold(stream(0, 98, new, offset=50))
    with pytest.raises(ImageTruncated, match="sent 98 of 99 bytes"):
        await length(stated.hold(stream(98, None, new)))


def test_the_validator_of_a_replaced_image_proves_nothing_later() -> None:
    stated = SourceSize(100, "v")
    stated.hold(stream(0, 90, None))
    assert stated.hold(stream(0, 80, "v")).size == 80


def test_what_a_row_knows() -> None:
    """The last statement counts, also for an image without a checkpoint."""
    image = Image("i", "s", "n", size_bytes=100, validator="v", digest=Digest("md5", "0"))
    later = Import(1, image, stated_size=200, stated_validator="w")
    for task, validator, size in ((Import(1, image), "v", 100), (later, "w", 200)):
        with pytest.raises(SourceFailed, match=f"stated {size} before"):
            SourceSize.of(task).hold(stream(0, 1, validator, offset=1))


@ensureDeferred
async def test_the_stated_length_proves_the_end() -> None:
    """A connection that ends exactly where the image should end was not broken."""
    for come, proven in ((100, True), (101, False)):
        held = SourceSize(100, "v").hold(stream(come, None))
        await length(held)
        assert has_ended(held) is proven
