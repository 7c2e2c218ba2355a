"""Finds images among all sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import unquote

from bootvol.errors import ImageNotFound, SourceFailed
from bootvol.interfaces import IImageSource
from bootvol.model import Caller, Image


class Images:
    """The images of all sources, in the order in which the operator named them.

    :param sources: by name.
    """

    def __init__(self, sources: Mapping[str, IImageSource]) -> None:
        self._sources = sources

    def source(self, name: str) -> IImageSource:
        """Return a source by its name.

        :raises SourceFailed: the operator has taken it out of the configuration.
        """
        try:
            return self._sources[name]
        except KeyError:
            raise SourceFailed(f"The source {name} is no longer configured.") from None

    async def listed(self, caller: Caller) -> Sequence[Image]:
        """List the images that ``caller`` may use; where two share an id, the first source's.

        :raises SourceFailed: a source does not answer.
        """
        found: dict[str, Image] = {}
        for source in self._sources.values():
            for image in await source.images(caller):
                found.setdefault(image.id, image)
        return list(found.values())

    async def find(self, caller: Caller, reference: str) -> Image:
        """Find what ``imageRef`` means: an id, a URL that a source reads, or one ending in an id.

        An id may be percent-encoded, as it is in a URL (RFC 3986, section 2.1); where there is an
        image whose id is just what was written, that one is meant.

        :raises ImageNotFound: no source knows it, or may read it.
        :raises InvalidImageRef: it has the form of a URL, but one that serves to deceive.
        :raises SourceFailed: a source does not answer.
        """
        candidates = [reference]
        if "://" in reference:
            candidates.append(reference.rstrip("/").rpartition("/")[2])
        decoded = unquote(candidates[-1])
        if decoded != candidates[-1] and decoded.isprintable():
            candidates.append(decoded)
        for candidate in candidates:
            for source in self._sources.values():
                try:
                    return await source.find(caller, candidate)
                except ImageNotFound:
                    continue
        raise ImageNotFound(reference)
