"""Finds images among all sources; one that fails or hangs stops no other."""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from enum import Enum
from typing import Any, Final, TypeVar
from unicodedata import category
from urllib.parse import unquote

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from bootvol.errors import (
    BootvolError,
    ErrorReport,
    ImageNotFound,
    SourceFailed,
    SourceGone,
    TooManyCalls,
)
from bootvol.interfaces import IImageSource
from bootvol.model import Caller, Image
from bootvol.service.inflight import InFlight
from bootvol.threads import StillRunning, at_most
from bootvol.turns import Paced

#: Seconds that a source may take to list its images, and to find one: a caller waits.
_LISTING: Final = 10.0
_FINDING: Final = 30.0

#: Of more images than these each caller is shown some in a turn of the reactor: to show
#: 1,000 takes some 20 ms, and callers may have waited together.
_MANY: Final = 50

#: Categories of characters that no id has: control characters, and halves of others.
_CONTROL: Final = frozenset({"Cc", "Cs"})

T = TypeVar("T")


class _Question(Enum):
    """What a source is asked; by it, for how many seconds."""

    LIST = _LISTING
    FIND = _FINDING


class Images:
    """The images of all sources, in the order in which the operator named them.

    :param sources: by name.
    :param clock: the reactor.
    :param most: how many callers may wait for one source.
    """

    _log = Logger()

    def __init__(self, sources: Mapping[str, IImageSource], clock: IReactorTime, most: int) -> None:
        self._sources = sources
        self._clock = clock
        #: Who waits for each, by tenant.
        self._in_flight = {name: InFlight(most) for name in sources}
        #: Those that have not answered a list, or the question for one image, in time, and have not
        #: answered since. To list thousands of images may take a source long which finds each of
        #: them at once.
        self._silent: set[tuple[str, _Question]] = set()
        #: Those whose failure has been logged.
        self._failing: set[str] = set()
        #: The ids that each source listed last.
        self._known: dict[str, Collection[str]] = {}
        self._pace = Paced(clock)

    def source(self, name: str) -> IImageSource:
        """Return a source by its name.

        :raises SourceGone: the operator has taken it out of the configuration.
        """
        try:
            return self._sources[name]
        except KeyError:
            raise SourceGone(name) from None

    def missing(self, name: str) -> ErrorReport | None:
        """Return what to say of what is to be made from a source if that is not configured."""
        return None if name in self._sources else SourceGone(name).report()

    async def listed(self, caller: Caller) -> Sequence[Image]:
        """List the images that ``caller`` may use; where two share an id, the first source's.

        A source that fails is left out, and the log says so.

        :raises SourceFailed: no source lists any image, and one of them fails.
        :raises TooManyCalls: too many calls of the tenant wait for one of them.
        """
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
        """Find what ``imageRef`` means: an id, a URL that a source reads, or one ending in an id.

        An id may be percent-encoded, as it is in a URL (RFC 3986, section 2.1); where there is an
        image whose id is just what was written, that one is meant.

        :raises ImageNotFound: no source knows it, or may read it.
        :raises InvalidImageRef: it has the form of a URL, but one that serves to deceive.
        :raises SourceFailed: a source that may know it does not answer, and no other knows it.
        :raises TooManyCalls: too many calls of the tenant wait for such a source.
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
                    # A failure tells more than that there was no place to wait.
                    failed = failed if isinstance(failed, SourceFailed) else error
        raise failed or ImageNotFound(reference)

    async def _list(self, name: str, caller: Caller) -> Sequence[Image]:
        source = self._sources[name]
        found = await self._ask(name, caller, _Question.LIST, lambda: source.images(caller))
        self._known[name] = frozenset(image.id for image in found)
        return found

    async def _find(self, name: str, caller: Caller, candidate: str) -> Image:
        source = self._sources[name]
        return await self._ask(
            # How long a URL takes says nothing of other URLs.
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
        question: Callable[[], Coroutine[Any, Any, T]],
        *,
        apart: bool = False,
    ) -> T:
        """Ask a source, and log the first of its failures in a row.

        :param apart: whether its silence or failure says nothing of what it answers to others.
        :raises SourceFailed: it fails, does not answer in time, or has not answered another
            question of the kind yet.
        :raises TooManyCalls: too many calls of the tenant wait for it.
        """
        silence = f"Source {name} does not answer."
        if (name, kind) in self._silent:
            raise SourceFailed(silence)
        running = self._in_flight[name].hold(caller.tenant, question)
        try:
            answer = await at_most(self._clock, kind.value, running)
        except StillRunning:
            if not apart:
                self._silent.add((name, kind))
                running.addBoth(lambda _: self._silent.discard((name, kind)))
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
