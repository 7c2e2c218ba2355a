"""The contract suite of :class:`bootvol.interfaces.IImageStore`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, gatherResults
from zope.interface.verify import verifyObject

from bootvol.errors import (
    ImageConflict,
    ImageNotFound,
    ImageNotReady,
    ImageProtected,
    ImageUnusable,
    QuotaExceeded,
)
from bootvol.interfaces import IImageStore, IStagedUpload, PluginContext
from bootvol.model import (
    ImageRecord,
    ImageStatus,
    MemberStatus,
    Visibility,
)
from bootvol.testing.image_records import (
    CONTENT,
    OWNER,
    STRANGER,
    StoreSubject,
    facts,
    fetch,
    member,
    new_record,
    send,
    status,
    stored,
)
from bootvol.testing.sources import HOSTILE, ImageSourceContract, read_all
from bootvol.testing.volumes import cancelled, noise


class ImageStoreContract(ImageSourceContract):
    """The tests for every store.  Subclasses provide the fixture ``subject``."""

    @pytest.fixture
    def store(self, subject: StoreSubject) -> IImageStore:
        return subject.store

    @ensureDeferred
    async def test_provides_the_interface_of_stores(self, subject: StoreSubject) -> None:
        verifyObject(IImageStore, subject.store)
        assert subject.store is subject.source

    @ensureDeferred
    async def test_a_record_without_bytes(self, store: IImageStore) -> None:
        record = attrs.evolve(
            new_record(),
            tags=("a", "é"),
            properties={"os_distro": "debian"},
            min_disk_gib=3,
            is_protected=True,
            members=(member(MemberStatus.PENDING), member(MemberStatus.REJECTED, "other")),
            fetch=attrs.evolve(fetch(ended=True), failure="refused"),
        )
        await store.add(record)
        assert await store.record(record.id) == record
        assert record in await store.records()
        with pytest.raises(ImageNotReady):
            await store.find(OWNER, record.id)
        with pytest.raises(ImageNotFound):
            await store.find(STRANGER, record.id)
        assert record.id not in [each.id for each in await store.images(OWNER)]

    @ensureDeferred
    async def test_stores_bytes(self, store: IImageStore) -> None:
        record = attrs.evolve(new_record(), disk_format="qcow2", min_disk_gib=2)
        await store.add(record)
        upload = await store.upload(record.id, None)
        verifyObject(IStagedUpload, upload)
        assert await status(store, record.id) is ImageStatus.SAVING
        await send(upload, CONTENT)
        active = await upload.finish(facts(CONTENT))
        await upload.abort()
        assert active == await store.record(record.id)
        assert active.updated_at >= record.updated_at
        assert (active.status, active.data) == (ImageStatus.ACTIVE, facts(CONTENT))
        unchanged = {"updated_at": 1000.0, "status": ImageStatus.QUEUED, "data": None}
        assert {**attrs.asdict(active), **unchanged} == attrs.asdict(record)
        image = await store.find(OWNER, record.id)
        assert (image.id, image.source, image.name) == (record.id, store.name, "disk")
        assert (image.format, image.min_disk_gib) == ("qcow2", 2)
        assert (image.size_bytes, image.disk_bytes) == (len(CONTENT), len(CONTENT))
        assert image.digest is not None
        assert image.digest.value == facts(CONTENT).sha512
        assert await read_all(await store.open(image), 65536) == CONTENT
        assert image in await store.images(OWNER)

    @pytest.mark.parametrize(
        ("visibility", "found", "listed"),
        [
            (Visibility.PRIVATE, False, False),
            (Visibility.SHARED, False, False),
            (Visibility.COMMUNITY, True, False),
            (Visibility.PUBLIC, True, True),
        ],
    )
    @ensureDeferred
    async def test_who_may_use_an_image(
        self, store: IImageStore, visibility: Visibility, found: bool, listed: bool
    ) -> None:
        image_id = (
            await stored(store, record=attrs.evolve(new_record(), visibility=visibility))
        ).id
        assert image_id in [each.id for each in await store.images(OWNER)]
        assert (image_id in [each.id for each in await store.images(STRANGER)]) is listed
        if found:
            assert (await store.find(STRANGER, image_id)).id == image_id
        else:
            with pytest.raises(ImageNotFound):
                await store.find(STRANGER, image_id)

    @ensureDeferred
    async def test_changes(self, store: IImageStore) -> None:
        record = await stored(store)

        def changed(former: ImageRecord) -> ImageRecord:
            assert former == record
            return attrs.evolve(former, id="f", status=ImageStatus.QUEUED, data=None, name="new")

        assert await store.change(record.id, changed) == attrs.evolve(record, name="new")
        assert await store.record(record.id) == attrs.evolve(record, name="new")

        def refused(former: ImageRecord) -> ImageRecord:
            raise ImageConflict("refused")

        with pytest.raises(ImageConflict):
            await store.change(record.id, refused)
        assert await store.record(record.id) == attrs.evolve(record, name="new")

    @ensureDeferred
    async def test_a_new_owner(self, subject: StoreSubject) -> None:
        store, half = subject.store, noise(subject.quota_bytes // 2 + 1)
        given = await stored(store, half)
        new = await store.change(given.id, lambda each: attrs.evolve(each, owner=STRANGER.tenant))
        assert new == attrs.evolve(given, owner=STRANGER.tenant) == await store.record(given.id)
        assert (await store.find(STRANGER, given.id)).id == given.id
        with pytest.raises(ImageNotFound):
            await store.find(OWNER, given.id)
        kept = await stored(store, half)
        with pytest.raises(QuotaExceeded):
            await store.change(kept.id, lambda each: attrs.evolve(each, owner=STRANGER.tenant))
        assert (await store.record(kept.id)) == kept

    @pytest.mark.parametrize(
        ("answer", "listed"),
        [
            (MemberStatus.PENDING, False),
            (MemberStatus.ACCEPTED, True),
            (MemberStatus.REJECTED, False),
        ],
    )
    @ensureDeferred
    async def test_members(self, store: IImageStore, answer: MemberStatus, listed: bool) -> None:
        shared = attrs.evolve(new_record(), visibility=Visibility.SHARED, members=(member(answer),))
        image_id = (await stored(store, record=shared)).id
        assert (await store.find(STRANGER, image_id)).id == image_id
        assert (image_id in [each.id for each in await store.images(STRANGER)]) is listed
        await store.change(image_id, lambda each: attrs.evolve(each, visibility=Visibility.PRIVATE))
        with pytest.raises(ImageNotFound):
            await store.find(STRANGER, image_id)

    @ensureDeferred
    async def test_staged_and_deactivated_bytes(self, store: IImageStore) -> None:
        record = new_record()
        await store.add(record)
        upload = await store.upload(record.id, None)
        await send(upload, CONTENT)
        staged = await upload.stage(facts(CONTENT))
        await upload.abort()
        assert staged == await store.record(record.id)
        assert (staged.status, staged.data) == (ImageStatus.UPLOADING, facts(CONTENT))
        with pytest.raises(ImageConflict):
            await store.upload(record.id, None)

        async def becomes(wanted: ImageStatus) -> None:
            await store.change(record.id, lambda each: attrs.evolve(each, status=wanted))
            assert await status(store, record.id) is wanted

        for unusable, error in (
            (ImageStatus.UPLOADING, ImageNotReady),
            (ImageStatus.DEACTIVATED, ImageUnusable),
        ):
            await becomes(unusable)
            with pytest.raises(error):
                await store.find(OWNER, record.id)
            assert record.id not in [each.id for each in await store.images(OWNER)]
            await becomes(ImageStatus.ACTIVE)
            image = await store.find(OWNER, record.id)
            assert image in await store.images(OWNER)
        assert await read_all(await store.open(image), 65536) == CONTENT

    @ensureDeferred
    async def test_a_download_into_a_store(self, store: IImageStore) -> None:
        record = attrs.evolve(new_record(), fetch=fetch())
        await store.add(record)
        for _ in range(2):
            assert await status(store, record.id) is ImageStatus.IMPORTING
            upload = await store.upload(record.id, None)
            assert await status(store, record.id) is ImageStatus.IMPORTING
            await upload.abort()
        await store.change(record.id, lambda each: attrs.evolve(each, fetch=fetch(ended=True)))
        assert await status(store, record.id) is ImageStatus.QUEUED

    @ensureDeferred
    async def test_concurrent_changes_are_all_kept(self, store: IImageStore) -> None:
        record = new_record()
        await store.add(record)

        def with_tag(tag: str) -> Callable[[ImageRecord], ImageRecord]:
            return lambda former: attrs.evolve(former, tags=(*former.tags, tag))

        tags = [str(number) for number in range(10)]
        await gatherResults(
            [Deferred.fromCoroutine(store.change(record.id, with_tag(tag))) for tag in tags]
        )
        assert sorted((await store.record(record.id)).tags) == tags

    @ensureDeferred
    async def test_removes(self, store: IImageStore) -> None:
        record = await stored(store)
        image = await store.find(OWNER, record.id)

        def check(current: ImageRecord) -> None:
            assert current.id == record.id
            raise ImageProtected(record.id)

        with pytest.raises(ImageProtected):
            await store.remove(record.id, check)
        assert await store.record(record.id) == record
        await store.remove(record.id)
        for call in (store.record, store.remove, lambda each: store.find(OWNER, each)):
            with pytest.raises(ImageNotFound):
                await call(record.id)
        with pytest.raises(ImageNotFound):
            await store.open(image)

    @ensureDeferred
    async def test_an_image_removed_during_its_upload(self, store: IImageStore) -> None:
        record = new_record()
        await store.add(record)
        upload = await store.upload(record.id, None)
        await send(upload, CONTENT)
        await store.remove(record.id)
        with pytest.raises(ImageNotFound):
            await upload.finish(facts(CONTENT))
        await upload.abort()
        with pytest.raises(ImageNotFound):
            await store.record(record.id)

    @ensureDeferred
    async def test_one_upload_at_a_time(self, store: IImageStore) -> None:
        record = new_record()
        await store.add(record)
        first = await store.upload(record.id, None)
        with pytest.raises(ImageConflict):
            await store.upload(record.id, None)
        await send(first, b"x" * len(CONTENT))
        await first.abort()
        await first.abort()
        assert await status(store, record.id) is ImageStatus.QUEUED
        other = await store.upload(record.id, None)
        await send(other, b"x" * len(CONTENT))
        second = await store.upload(record.id, None, instead=True)
        await send(second, CONTENT)
        with pytest.raises(ImageNotFound):
            await other.finish(facts(CONTENT))
        await other.abort()
        assert await status(store, record.id) is ImageStatus.SAVING
        await second.finish(facts(CONTENT))
        with pytest.raises(ImageConflict):
            await store.upload(record.id, None)
        image = await store.find(OWNER, record.id)
        assert await read_all(await store.open(image), 65536) == CONTENT

    @ensureDeferred
    async def test_the_quota(self, subject: StoreSubject) -> None:
        store, half = subject.store, noise(subject.quota_bytes // 2 + 1)
        await stored(store, half)
        record = new_record()
        await store.add(record)
        with pytest.raises(QuotaExceeded):
            await store.upload(record.id, len(half))
        assert await status(store, record.id) is ImageStatus.QUEUED
        upload = await store.upload(record.id, None)
        with pytest.raises(QuotaExceeded):
            await send(upload, half)
        await upload.abort()
        assert await status(store, record.id) is ImageStatus.QUEUED
        await stored(store, half, new_record(STRANGER.tenant))

    @ensureDeferred
    async def test_uploads_at_once_count_together(self, subject: StoreSubject) -> None:
        store, half = subject.store, noise(subject.quota_bytes // 2 + 1)
        uploads = []
        for record in (new_record(), new_record()):
            await store.add(record)
            uploads.append(await store.upload(record.id, None))
        await send(uploads[0], half)
        with pytest.raises(QuotaExceeded):
            await send(uploads[1], half)
        await uploads[0].abort()
        await send(uploads[1], half[: len(half) // 2])
        await uploads[1].abort()

    @ensureDeferred
    async def test_removed_images_count_no_more(self, subject: StoreSubject) -> None:
        half = noise(subject.quota_bytes // 2 + 1)
        for _ in range(3):
            record = await stored(subject.store, half)
            await subject.store.remove(record.id)

    @ensureDeferred
    async def test_a_cancelled_upload_leaves_the_image_queued(self, store: IImageStore) -> None:
        record = new_record()
        await store.add(record)
        await cancelled(store.upload(record.id, None))
        assert await status(store, record.id) is ImageStatus.QUEUED

    @ensureDeferred
    async def test_hostile_ids(self, store: IImageStore) -> None:
        for image_id in (*HOSTILE, "0" * 400, "a/../b"):
            for call in (
                store.record,
                store.remove,
                lambda each: store.upload(each, None),
                lambda each: store.change(each, lambda record: record),
            ):
                with pytest.raises(ImageNotFound):
                    await call(image_id)


def make_image_store_tests(
    make: Callable[[PluginContext, Path], StoreSubject],
) -> type[ImageStoreContract]:
    """Return the contract suite of one store, for a test module to name.

    The suite contains the suite of sources.

    :param make: creates the subject from a context and an empty folder; called once per test.  The
        store must take its name from the context.
    """

    class TestImageStore(ImageStoreContract):
        @pytest.fixture
        def subject(self, context: PluginContext, tmp_path: Path) -> StoreSubject:
            return make(context, tmp_path)

    return TestImageStore
