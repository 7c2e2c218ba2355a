"""Which URLs may be asked for.  The very object that was checked is the one that is requested."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from hyperlink import DecodedURL, EncodedURL, URLParseError

_SCHEMES: Final = frozenset({"http", "https"})
#: Readers of URLs disagree on what these mean; no image needs them.
_SUSPECT: Final = re.compile(r"[\x00-\x20\x7f\\]")
_PROXY: Final = re.compile(r"http://(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})/?")


class Refused(Exception):
    """The text is no URL that may be asked for."""


def parse(text: str) -> DecodedURL:
    """Return ``text`` as a URL.

    :raises Refused: it is none, or has a form that serves to deceive.
    """
    try:
        url = DecodedURL.from_text(text)
        segments = url.path
    except (URLParseError, ValueError, UnicodeError) as error:
        raise Refused("is not a URL") from error
    if url.scheme not in _SCHEMES or not url.host:
        raise Refused("is not an http or https URL")
    if _SUSPECT.search(text) or any(url.userinfo) or url.fragment:
        raise Refused("has a form that is not allowed")
    if any(segment in {".", ".."} or set(segment) & set("/\\\0") for segment in segments):
        raise Refused("has a path that is not allowed")
    if "" in segments[:-1]:
        raise Refused("has an empty part in its path")
    return url


def to_ask(url: DecodedURL) -> EncodedURL:
    """Return ``url`` in the form that treq makes no more of.

    Of its own it would ask for ``url.to_uri()``, which takes an IPv6 address for a name.
    """
    encoded = url.encoded_url
    if ":" in url.host:
        encoded = encoded.replace(host="name").to_uri().replace(host=url.host)
    else:
        encoded = encoded.to_uri()
    return _Ready.from_text(encoded.to_text())


class _Ready(EncodedURL):
    """A URL whose every part is as it is sent."""

    def to_uri(self) -> EncodedURL:
        return self


def parse_proxy(text: str) -> tuple[str, int]:
    """Return the host and port of a proxy.

    :raises Refused: ``text`` is not the URL of one.
    """
    if "@" in text:
        raise Refused("has credentials, which are not supported")
    found = _PROXY.fullmatch(text)
    if found is None or not 0 < int(found[3]) < 65536:
        raise Refused("is not http://HOST:PORT")
    return found[1] or found[2], int(found[3])


def lies_under(url: DecodedURL, prefixes: Iterable[DecodedURL]) -> bool:
    """Tell whether ``url`` is one of ``prefixes`` or below it, on the same origin."""
    return any(_origin(url) == _origin(each) and _below(url, each) for each in prefixes)


def _origin(url: DecodedURL) -> tuple[str, str, int | None]:
    return (url.scheme, url.host.lower(), url.port)


def _below(url: DecodedURL, prefix: DecodedURL) -> bool:
    parts = prefix.path if prefix.path[-1:] != ("",) else prefix.path[:-1]
    return url.path[: len(parts)] == parts
