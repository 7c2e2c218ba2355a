"""Makes the downloads that callers have requested for their images.

A request is a part of the image's record, so the request outlasts the daemon.  Several daemons may
share a store: the store gives each upload to one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Final

import attrs
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from bootvol.errors import BootvolError, ImageConflict, ImageNotFound
from bootvol.interfaces import IImageSource, IImageStore
from bootvol.model import ImageRecord
from bootvol.store.waiting import Waiting
from bootvol.threads import Shared
from bootvol.worker.image_fetches import Download, Fetcher, Removed
from bootvol.worker.lanes import Lane, LaneJob
from bootvol.worker.repeating import Repeating
from bootvol.worker.shares import Limit, Rules, Shares

#: Seconds between two searches for requests that nobody has told of.
LOOK: Final = 20.0
#: The most downloads into a store at once, beside those that pause, hang or are slow.
MOST: Final = 4
_LIMITS: Final = (Limit(("downloads",), MOST),)


class ImageDownloads(Service):
    """Downloads images into the stores, a few at a time, in a lane for each store.

    :param sources: the sources by name; those that take images have the requests.
    :param clock: times the searches.
    :param now: returns the seconds since 1970.
    :param least: rate in bytes per second below which a download is slow.
    """

    def __init__(
        self,
        sources: Mapping[str, IImageSource],
        fetcher: Fetcher,
        clock: IReactorTime,
        now: Callable[[], float],
        least: float,
    ) -> None:
        stores = {
            name: IImageStore(each)
            for name, each in sources.items()
            if IImageStore.providedBy(each)
        }
        self._stores = [_Store(name, each, fetcher, now) for name, each in stores.items()]
        for store in self._stores:
            store.lane = Lane(
                Rules(lambda _: _LIMITS, gives_way=True),
                store.claim,
                self.wake,
                lambda: bool(self.running),
                clock,
                least,
            )
        self._looking = LoopingCall(self._look)
        self._looking.clock = clock

    def startService(self) -> None:
        """Search for requests now and periodically."""
        super().startService()
        if self._stores:
            self._looking.start(LOOK)

    def stopService(self) -> Deferred[None]:
        """Stop; the Deferred fires when all downloads have ended.  Their requests stay."""
        super().stopService()
        if self._looking.running:
            self._looking.stop()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        for store in self._stores:
            # A search may still begin a download.
            await store.lane.idle()
        jobs = [job for store in self._stores for job in store.jobs.values()]
        for job in jobs:
            job.cancel()
        for job in jobs:
            await job.ended.wait()

    def wake(self) -> None:
        """Search for requests."""
        for store in self._stores:
            store.lane.wake()

    def _look(self) -> None:
        for store in self._stores:
            store.postponed.clear()
        self.wake()


@attrs.define(eq=False)
class _Job:
    """A running download."""

    task: Download
    ended: Shared[None]

    def cancel(self) -> None:
        """Stop the download; its request stays."""
        self.ended.cancel()


class _Store:
    """The downloads into one store.

    :ivar lane: gives the places.
    :ivar jobs: the running downloads by the ids of their images.
    :ivar postponed: the ids of images whose requests wait for the next periodical search.
    """

    _log = Logger()
    lane: Lane

    def __init__(
        self, name: str, store: IImageStore, fetcher: Fetcher, now: Callable[[], float]
    ) -> None:
        self._store = store
        self._fetcher = fetcher
        self._now = now
        self._faults = Repeating(
            self._log,
            "downloads into source {name} wait",
            "downloads into source {name} go on",
            name=name,
        )
        self.jobs: dict[str, _Job] = {}
        self.postponed: set[str] = set()

    async def claim(self, shares: Shares) -> tuple[LaneJob | None, Collection[Waiting]]:
        """Begin the next download, if any: see :data:`.lanes.StartJob`."""
        waiting: dict[Waiting, list[ImageRecord]] = {}
        try:
            for record in sorted(filter(_waits, await self._store.records()), key=_asked_at):
                if record.id in self.jobs or record.id in self.postponed:
                    continue
                if record.data is not None:
                    # A daemon died between the last byte and the end of the request.
                    await self._end(record, None)
                else:
                    waiting.setdefault(_what(record), []).append(record)
        except Exception as error:
            self._faults.failed(error)
            return None, ()
        self._faults.succeeded()
        admitted = shares.admitted(waiting.keys())
        return self._begin(waiting[admitted[0]][0]) if admitted else None, waiting.keys()

    def _begin(self, record: ImageRecord) -> _Job:
        fetch = record.fetch
        download = Download(record, None if fetch is None else fetch.image)
        job = _Job(download, Shared(Deferred.fromCoroutine(self._run(download))))
        self.jobs[record.id] = job
        job.ended.wait().addBoth(self._ended, record.id)
        return job

    def _ended(self, _result: object, image_id: str) -> None:
        del self.jobs[image_id]

    async def _run(self, download: Download) -> None:
        """Make a download."""
        record = download.record
        failure: str | None = None
        try:
            if download.image is None:
                failure = "The request names no image."
            else:
                await self._fetcher.fetch(self._store, download, download.image)
        except (CancelledError, Removed):
            return
        except ImageConflict:
            # Another daemon makes the download, or its caller uploads the image.
            self.postponed.add(record.id)
            return
        except BootvolError as error:
            failure = error.message
            self._log.warn(
                "the download of image {id} (tenant {tenant}, {request_id}) failed: {code}: {why}",
                id=record.id,
                tenant=record.owner,
                request_id=record.fetch.request_id if record.fetch is not None else "",
                code=error.code,
                why=error.message,
            )
        except Exception:
            self._log.failure("the download of image {id} failed", id=record.id)
            failure = BootvolError.default_message
        try:
            await self._end(record, failure)
        except CancelledError:
            pass
        except BootvolError as error:
            self._log.warn(
                "the end of the download of image {id} cannot be noted yet: {why}",
                id=record.id,
                why=error.message,
            )
            self.postponed.add(record.id)

    async def _end(self, record: ImageRecord, failure: str | None) -> None:
        """Note the end of a request, unless its image or the request has gone.

        :raises bootvol.errors.SourceFailed: if the store fails.
        """
        asked = record.fetch

        def ended(now: ImageRecord) -> ImageRecord:
            if asked is None or now.fetch is None or now.fetch.id != asked.id:
                return now
            moment = self._now()
            done = attrs.evolve(now.fetch, ended=True, failure=failure, updated_at=moment)
            return attrs.evolve(now, fetch=done, updated_at=moment)

        try:
            await self._store.change(record.id, ended)
        except ImageNotFound:
            return


def _waits(record: ImageRecord) -> bool:
    return record.fetch is not None and not record.fetch.ended


def _asked_at(record: ImageRecord) -> float:
    return record.fetch.created_at if record.fetch is not None else 0.0


def _what(record: ImageRecord) -> Waiting:
    image = None if record.fetch is None else record.fetch.image
    return Waiting(None, record.owner, None, None if image is None else image.source)
