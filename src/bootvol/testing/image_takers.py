"""The contract suite of :class:`bootvol.interfaces.IImageTaker`."""

from __future__ import annotations

from typing import Final

import attrs
import pytest
from pytest_twisted import ensureDeferred
from zope.interface.verify import verifyObject

from bootvol.clocks import sleep
from bootvol.errors import (
    BootvolError,
    ImageNotFound,
    ImageNotReady,
    SourceFailed,
    Unauthorized,
)
from bootvol.interfaces import IImageTaker, IImageUpload
from bootvol.model import Caller, ImageRecord, ImageStatus
from bootvol.reactors import installed
from bootvol.testing.contract import Contract
from bootvol.testing.image_records import CONTENT, facts, new_record, send
from bootvol.testing.sources import read_all

#: Number of tries to remove an image.
_TRIES: Final = 5


@attrs.frozen(kw_only=True)
class TakerSubject:
    """A source under test, with facts for the suite.

    :ivar taker: the source.
    :ivar taking: a caller who may add images.
    :ivar unknown: a caller whom the source does not know.
    """

    taker: IImageTaker
    taking: Caller
    unknown: Caller


class ImageTakerContract(Contract):
    """The tests for every source that takes images of volumes.

    Subclasses provide the fixture ``takes``.
    """

    @ensureDeferred
    async def test_takes_images_of_volumes(self, takes: TakerSubject) -> None:
        verifyObject(IImageTaker, takes.taker)
        record = await _taken(takes)
        with pytest.raises(ImageNotReady):
            await takes.taker.find(takes.taking, record.id)
        upload = await takes.taker.receive(takes.taking, record, len(CONTENT))
        verifyObject(IImageUpload, upload)
        await send(upload, CONTENT)
        active = await upload.finish(facts(CONTENT))
        await upload.abort()
        assert (active.id, active.status) == (record.id, ImageStatus.ACTIVE)
        image = await takes.taker.find(takes.taking, record.id)
        assert (image.name, image.format, image.size_bytes) == ("disk", "raw", len(CONTENT))
        assert await read_all(await takes.taker.open(image), 65536) == CONTENT

    @ensureDeferred
    async def test_a_complete_image_stays(self, takes: TakerSubject) -> None:
        record = await _taken(takes)
        upload = await takes.taker.receive(takes.taking, record, len(CONTENT))
        await send(upload, CONTENT)
        await upload.finish(facts(CONTENT))
        for caller in (takes.taking, None):
            await takes.taker.give_up(caller, record.id)
            assert (await takes.taker.find(takes.taking, record.id)).id == record.id

    @pytest.mark.parametrize("knows", [True, False])
    @ensureDeferred
    async def test_an_image_without_all_bytes_goes(self, takes: TakerSubject, knows: bool) -> None:
        record = await _taken(takes, is_protected=True)
        upload = await takes.taker.receive(takes.taking, record, 2 * len(CONTENT))
        await send(upload, CONTENT)
        for _ in range(2):
            await upload.abort()
        for _ in range(2):
            await _given_up(takes, takes.taking if knows else None, record.id)
        with pytest.raises(ImageNotFound):
            await takes.taker.find(takes.taking, record.id)

    @ensureDeferred
    async def test_too_few_bytes_are_no_image(self, takes: TakerSubject) -> None:
        record = await _taken(takes)
        upload = await takes.taker.receive(takes.taking, record, len(CONTENT))
        await send(upload, CONTENT[:-1])
        with pytest.raises(BootvolError):
            await upload.finish(facts(CONTENT[:-1]))
        await upload.abort()
        await _given_up(takes, takes.taking, record.id)
        with pytest.raises(ImageNotFound):
            await takes.taker.find(takes.taking, record.id)

    @ensureDeferred
    async def test_an_unknown_caller_adds_nothing(self, takes: TakerSubject) -> None:
        record = new_record(takes.taking.tenant)
        with pytest.raises(Unauthorized):
            await takes.taker.take(takes.unknown, record)
        with pytest.raises(ImageNotFound):
            await takes.taker.find(takes.taking, record.id)


async def _given_up(takes: TakerSubject, caller: Caller | None, image_id: str) -> None:
    """Remove an image without bytes.  Try again after a failure of the source, as bootvol does.

    A source may still be at work on the broken upload.
    """
    for _ in range(_TRIES - 1):
        try:
            return await takes.taker.give_up(caller, image_id)
        except SourceFailed:
            await sleep(installed(), 1)
    return await takes.taker.give_up(caller, image_id)


async def _taken(takes: TakerSubject, *, is_protected: bool = False) -> ImageRecord:
    """Add a record."""
    record = attrs.evolve(new_record(takes.taking.tenant), is_protected=is_protected)
    await takes.taker.take(takes.taking, record)
    return record
