"""Finds images among all sources; a source that fails or hangs does not affect the others."""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import suppress
from enum import Enum
from typing import Any, Final, TypeVar
from unicodedata import category
from urllib.parse import unquote
from weakref import WeakValueDictionary

from twisted.internet.defer import Deferred, DeferredList, DeferredSemaphore
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from bootvol.errors import (
    BootvolError,
    ErrorReport,
    ImageNotFound,
    InvalidImageRef,
    SeveralImages,
    SourceFailed,
    SourceGone,
    TooManyCalls,
    without_query,
)
from bootvol.fair_share import Paced
from bootvol.interfaces import IImageSource, IUrlSource
from bootvol.model import Caller, Image
from bootvol.service.inflight import InFlight
from bootvol.threads import StillRunning, at_most

#: Seconds that a source may take to list its images, and to find one image, while a caller waits.
_LISTING: Final = 10.0
_FINDING: Final = 30.0

#: Longer lists are shown in turns: one caller in each turn of the reactor. To show 1,000 images
#: takes some 20 ms, and callers may have waited together.
_MANY: Final = 50
#: Number of lists that a tenant gets at once.  A list of 10,000 images takes 13 MiB of memory, and
#: half a second of the reactor.
_LISTS: Final = 2

#: Unicode categories that no id contains: control characters, and surrogates (halves of other
#: characters).
_CONTROL: Final = frozenset({"Cc", "Cs"})

T = TypeVar("T")


class _Question(Enum):
    """The kinds of questions to a source; the values are timeouts in seconds."""

    LIST = _LISTING
    FIND = _FINDING


class Images:
    """The images of all sources, in the order of the configuration.

    :param sources: the sources by name.
    :param clock: the reactor.
    :param most: how many callers may wait for one source.
    """

    _log = Logger()

    def __init__(self, sources: Mapping[str, IImageSource], clock: IReactorTime, most: int) -> None:
        self._sources = sources
        self._clock = clock
        #: The waiting calls of each source, by tenant.
        self._in_flight = {name: InFlight(most) for name in sources}
        #: Sources that have not answered a list, or the question for one image, in time, and have
        #: not answered since; by tenant, whose own calls may be the reason.  A source may take long
        #: to list thousands of images, and yet find each of them at once.
        self._silent: set[tuple[str, _Question, str]] = set()
        #: Each tenant's lists take turns.
        self._lists: WeakValueDictionary[str, DeferredSemaphore] = WeakValueDictionary()
        #: Sources whose failure has been logged.
        self._failing: set[str] = set()
        #: The ids of each source's last list.
        self._known: dict[str, Collection[str]] = {}
        self._pace = Paced(clock)

    def source(self, name: str) -> IImageSource:
        """Return a source by name.

        :raises SourceGone: if the operator has removed the source from the configuration.
        """
        try:
            return self._sources[name]
        except KeyError:
            raise SourceGone(name) from None

    def missing(self, name: str) -> ErrorReport | None:
        """Return why an import from a source has to wait; None if the source is configured."""
        return None if name in self._sources else SourceGone(name).report()

    async def listed(self, caller: Caller) -> Sequence[Image]:
        """List the images that ``caller`` may use.

        If several sources have an image of the same id, the first source's image is listed.

        A source that fails is left out, and the failure is logged.

        :raises SourceFailed: if no source lists any image, and one of them fails.
        :raises TooManyCalls: if too many calls of the tenant wait for one of the sources.
        """
        async with self._lists.setdefault(caller.tenant, DeferredSemaphore(_LISTS)):
            return await self._listed(caller)

    async def _listed(self, caller: Caller) -> Sequence[Image]:
        asked = [Deferred.fromCoroutine(self._list(name, caller)) for name in self._sources]
        found: dict[str, Image] = {}
        refused: SourceFailed | None = None
        answers: Any = await DeferredList(asked, consumeErrors=True)
        for succeeded, result in answers:
            if succeeded:
                for image in result:
                    found.setdefault(image.id, image)
            elif isinstance(result.value, SourceFailed):
                refused = refused or result.value
            else:
                result.raiseException()
        if refused is not None and not found:
            raise refused
        if len(found) > _MANY:
            await self._pace.turn(caller.tenant)
        return list(found.values())

    async def find(self, caller: Caller, reference: str) -> Image:
        """Find the image that ``imageRef`` means.

        The text is an id, a URL that a source reads, or a URL ending in an id.

        An id may be percent-encoded, as in a URL (RFC 3986, section 2.1). An image whose id equals
        the text as written has priority.

        :raises ImageNotFound: if no source knows the image or may read it.
        :raises InvalidImageRef: if the text has the form of a URL, but of a deceptive one.
        :raises SourceFailed: if a source that may know the image does not answer, and no other
            source knows the image.
        :raises TooManyCalls: if too many calls of the tenant wait for such a source.
        """
        candidates = [reference]
        if "://" in reference:
            candidates.append(reference.rstrip("/").rpartition("/")[2])
        decoded = unquote(candidates[-1])
        if decoded != candidates[-1] and not _CONTROL & set(map(category, decoded)):
            candidates.append(decoded)
        failed: SourceFailed | TooManyCalls | None = None
        for candidate in candidates:
            for name in self._sources:
                try:
                    return await self._find(name, caller, candidate)
                except ImageNotFound:
                    continue
                except (SourceFailed, TooManyCalls) as error:
                    if candidate in self._known.get(name, ()):
                        # Another source may have another image of the same id.
                        raise
                    # A failure tells more than the lack of a place to wait.
                    failed = failed if isinstance(failed, SourceFailed) else error
        raise failed or ImageNotFound(reference)

    async def named(self, caller: Caller, name: str) -> Image:
        """Find the only image with a name, among the images that ``caller`` may use.

        :raises ImageNotFound: if no listed image has the name.
        :raises SeveralImages: if several images have the name.
        :raises SourceFailed: as :meth:`listed`.
        :raises TooManyCalls: as :meth:`listed`.
        """
        found = [each for each in await self.listed(caller) if each.name == name]
        if not found:
            raise ImageNotFound(name)
        if len(found) > 1:
            raise SeveralImages(name)
        return found[0]

    @property
    def reads_urls(self) -> bool:
        """True if a source reads URLs."""
        return any(IUrlSource.providedBy(each) for each in self._sources.values())

    async def find_url(self, caller: Caller, url: str) -> Image:
        """Find the image at a URL, in the sources that read URLs.

        :raises InvalidImageRef: if no source may read the URL, or the server has no such image.
        :raises SourceFailed: if the server does not answer.
        :raises TooManyCalls: if too many calls of the tenant wait for the source.
        """
        for name, source in self._sources.items():
            if "://" in url and IUrlSource.providedBy(source):
                with suppress(ImageNotFound):
                    return await self._find(name, caller, url)
        raise InvalidImageRef(
            f"No image can be fetched from {without_query(url)}: the operator does not allow the"
            " URL, or the server has no such file."
        )

    async def ask(
        self,
        name: str,
        caller: Caller,
        question: Callable[[], Coroutine[Deferred[object], object, T]],
    ) -> T:
        """Ask a source a short question for a caller.

        :raises SourceFailed: if the source fails, or does not answer in time.
        :raises TooManyCalls: if too many calls of the tenant wait for the source.
        """
        return await self._ask(name, caller, _Question.FIND, question, apart=True)

    async def _list(self, name: str, caller: Caller) -> Sequence[Image]:
        source = self._sources[name]
        found = await self._ask(name, caller, _Question.LIST, lambda: source.images(caller))
        self._known[name] = frozenset(image.id for image in found)
        return found

    async def _find(self, name: str, caller: Caller, candidate: str) -> Image:
        source = self._sources[name]
        return await self._ask(
            # The time for one URL says nothing about other URLs.
            name,
            caller,
            _Question.FIND,
            lambda: source.find(caller, candidate),
            apart="://" in candidate,
        )

    async def _ask(
        self,
        name: str,
        caller: Caller,
        kind: _Question,
        question: Callable[[], Coroutine[Deferred[object], object, T]],
        *,
        apart: bool = False,
    ) -> T:
        """Ask a source, and log the first of its failures in a row.

        :param apart: whether silence or failure says nothing about the source's answers to other
            questions.
        :raises SourceFailed: if the source fails, does not answer in time, or has not yet answered
            another question of the kind and the tenant.
        :raises TooManyCalls: if too many calls of the tenant wait for the source.
        """
        silence = f"Source {name} does not answer."
        asked = (name, kind, caller.tenant)
        if asked in self._silent:
            raise SourceFailed(silence)
        running = self._in_flight[name].hold(caller.tenant, question)
        try:
            answer = await at_most(self._clock, kind.value, running)
        except StillRunning:
            if not apart:
                self._silent.add(asked)
                running.addBoth(lambda _: self._silent.discard(asked))
                self._note(name, silence)
            raise SourceFailed(silence) from None
        except SourceFailed as error:
            if not apart:
                self._note(name, error.message)
            raise
        except BootvolError:
            self._answers(name)
            raise
        except Exception:
            self._log.failure("source {name} fails", name=name)
            raise SourceFailed(f"Source {name} fails.") from None
        self._answers(name)
        return answer

    def _note(self, name: str, why: str) -> None:
        if name not in self._failing:
            self._failing.add(name)
            self._log.error("source {name} fails: {why}", name=name, why=why)

    def _answers(self, name: str) -> None:
        if name in self._failing:
            self._failing.discard(name)
            self._log.info("source {name} answers again", name=name)
