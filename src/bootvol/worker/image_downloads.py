"""Makes the downloads that callers have requested for their images.

A request is a part of the image's record, so the request outlasts the daemon.  Several daemons may
share a store: the store gives each upload to one of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

import attrs
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from bootvol.errors import BootvolError, ImageConflict, ImageNotFound
from bootvol.interfaces import IImageSource, IImageStore
from bootvol.model import ImageRecord
from bootvol.worker.image_fetches import Fetcher, Removed
from bootvol.worker.repeating import Repeating

#: Seconds between two searches for requests that nobody has told of.
LOOK: Final = 20.0
#: The most downloads at once.  One tenant has at most half of the free places.
MOST: Final = 4


class ImageDownloads(Service):
    """Downloads images into the stores, a few at a time, and tenant by tenant.

    :param sources: the sources by name; those that take images have the requests.
    :param clock: times the searches.
    :param now: returns the seconds since 1970.
    """

    _log = Logger()

    def __init__(
        self,
        sources: Mapping[str, IImageSource],
        fetcher: Fetcher,
        clock: IReactorTime,
        now: Callable[[], float],
    ) -> None:
        self._stores = {
            name: IImageStore(each)
            for name, each in sources.items()
            if IImageStore.providedBy(each)
        }
        self._fetcher = fetcher
        self._clock = clock
        self._now = now
        self._faults = {
            name: Repeating(
                self._log,
                "downloads into source {name} wait",
                "downloads into source {name} go on",
                name=name,
            )
            for name in self._stores
        }
        #: The running downloads by image, and the running searches by store.
        self._running: dict[str, Deferred[bool]] = {}
        self._tenants: Counter[str] = Counter()
        self._searches: dict[str, Deferred[None]] = {}
        #: The stores with news since the begin of a running search.
        self._again: set[str] = set()
        self._soon: IDelayedCall | None = None
        self._looking = LoopingCall(self.look)
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
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        for search in list(self._searches.values()):
            search.cancel()
            await search
        downloads = list(self._running.values())
        for download in downloads:
            download.cancel()
        await gatherResults(downloads)

    def wake(self) -> None:
        """Search for requests soon."""
        if self.running and self._soon is None:
            self._soon = self._clock.callLater(0, self._look_again)

    def _look_again(self) -> None:
        self._soon = None
        self.look()

    def look(self) -> None:
        """Search for requests in each store, or once more where a search is still running."""
        for name in self._stores:
            if name in self._searches:
                self._again.add(name)
            else:
                search = Deferred.fromCoroutine(self._search(name))
                if not search.called:
                    self._searches[name] = search

    async def _search(self, name: str) -> None:
        store = self._stores[name]
        try:
            records = await store.records()
            for record in sorted(filter(_waits, records), key=self._turn):
                if record.data is not None:
                    # A daemon died between the last byte and the end of the request.
                    await self._end(store, record, None)
                elif self._has_place(record):
                    self._begin(store, record)
        except CancelledError:
            pass
        except Exception as error:
            self._faults[name].failed(error)
        else:
            self._faults[name].succeeded()
        finally:
            self._searches.pop(name, None)
            if name in self._again:
                self._again.discard(name)
                self.wake()

    def _turn(self, record: ImageRecord) -> tuple[int, float]:
        """Return the place of a request in the order: tenants take turns."""
        asked = record.fetch.created_at if record.fetch is not None else 0.0
        return self._tenants[record.owner], asked

    def _has_place(self, record: ImageRecord) -> bool:
        free = MOST - len(self._running)
        return record.id not in self._running and self._tenants[record.owner] < free

    def _begin(self, store: IImageStore, record: ImageRecord) -> None:
        self._tenants[record.owner] += 1
        running = Deferred.fromCoroutine(self._run(store, record))
        self._running[record.id] = running
        running.addCallback(self._ended, record)

    def _ended(self, again: bool, record: ImageRecord) -> bool:
        del self._running[record.id]
        self._tenants[record.owner] -= 1
        if again:
            self.wake()
        return again

    async def _run(self, store: IImageStore, record: ImageRecord) -> bool:
        """Make a download; return whether its place is free for another one at once."""
        fetch = record.fetch
        assert fetch is not None  # noqa: S101 - for mypy
        failure: str | None = None
        try:
            if fetch.image is None:
                failure = "The request names no image."
            else:
                await self._fetcher.fetch(store, record, fetch.image)
        except (CancelledError, Removed):
            return True
        except ImageConflict:
            # Another daemon makes the download, or its caller uploads the image.
            return False
        except BootvolError as error:
            failure = error.message
            self._log.warn(
                "the download of image {id} (tenant {tenant}, {request_id}) failed: {code}: {why}",
                id=record.id,
                tenant=record.owner,
                request_id=fetch.request_id,
                code=error.code,
                why=error.message,
            )
        except Exception:
            self._log.failure("the download of image {id} failed", id=record.id)
            failure = BootvolError.default_message
        try:
            await self._end(store, record, failure)
        except CancelledError:
            pass
        except BootvolError as error:
            self._log.warn(
                "the end of the download of image {id} cannot be noted yet: {why}",
                id=record.id,
                why=error.message,
            )
            return False
        return True

    async def _end(self, store: IImageStore, record: ImageRecord, failure: str | None) -> None:
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
            await store.change(record.id, ended)
        except ImageNotFound:
            return


def _waits(record: ImageRecord) -> bool:
    return record.fetch is not None and not record.fetch.ended
