"""The servers that have the same images, by the operator's word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from hyperlink import DecodedURL
from twisted.internet.interfaces import IReactorTime

from bootvol_plugins.http.urls import lies_under, parse

#: Seconds during which a failed mirror comes after the others, and mirrors do not give parts of an
#: image again that begins anew.
_AVOIDED: Final = 300.0


class Mirrors:
    """The mirrors of one source.

    :param mirrors: other URL prefixes with the same files, by URL prefix.
    :param clock: the reactor.
    """

    def __init__(self, mirrors: Mapping[str, Sequence[str]], clock: IReactorTime) -> None:
        self._mirrors = [
            (parse(prefix), [parse(each) for each in others]) for prefix, others in mirrors.items()
        ]
        self._clock = clock
        # The time of the last failure, by scheme, host and port.
        self._failed: dict[tuple[str, str, int | None], float] = {}
        # The time when a mirror had last given a part of an image, by the image's URL.
        self._gave: dict[str, float] = {}

    def of(self, url: DecodedURL) -> list[DecodedURL]:
        """Return ``url`` and the URLs of the file at mirrors; last those that failed lately.

        A query may hold a signature for its server alone, so a URL with a query has no mirrors.
        """
        found = [url]
        for prefix, others in self._mirrors:
            if not url.query and lies_under(url, [prefix]):
                found += [_moved(url, prefix, each) for each in others]
        return sorted(dict.fromkeys(found), key=self._last_failure)

    def failed(self, url: DecodedURL) -> None:
        """Note a failure of a server."""
        self._failed[_server(url)] = self._clock.seconds()

    def gave(self, url: DecodedURL, giver: DecodedURL) -> None:
        """Note that a server has given a part of the image with this URL."""
        if giver == url:
            return
        now = self._clock.seconds()
        self._gave = {each: at for each, at in self._gave.items() if at + _AVOIDED > now}
        self._gave[url.to_text()] = now

    def gave_lately(self, url: DecodedURL) -> bool:
        """Return whether a mirror has lately given a part of the image with this URL."""
        at = self._gave.get(url.to_text())
        return at is not None and at + _AVOIDED > self._clock.seconds()

    def _last_failure(self, url: DecodedURL) -> float:
        """Return the time of a recent failure, or 0."""
        at = self._failed.get(_server(url))
        return 0.0 if at is None or at + _AVOIDED < self._clock.seconds() else at


def _server(url: DecodedURL) -> tuple[str, str, int | None]:
    return (url.scheme, url.host, url.port)


def _moved(url: DecodedURL, prefix: DecodedURL, other: DecodedURL) -> DecodedURL:
    """Return ``url``, which lies below ``prefix``, at the same place below ``other``."""
    begin = len(_path(prefix))
    path = (*_path(other), *url.encoded_url.path[begin:])
    return DecodedURL(other.encoded_url.replace(path=path), lazy=True)


def _path(prefix: DecodedURL) -> tuple[str, ...]:
    path = tuple(prefix.encoded_url.path)
    return path[:-1] if path[-1:] == ("",) else path
