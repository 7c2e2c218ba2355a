"""Which URLs may be asked for.  The very object that was checked is the one that is requested."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote, unquote, unquote_to_bytes

from hyperlink import URL, DecodedURL, EncodedURL, URLParseError

#: Readers of URLs disagree on what these mean; no image needs them.
_SUSPECT: Final = re.compile(r"[\x00-\x1f\x7f\\]")
#: A URL of the web without its fragment: scheme, authority, path, query (RFC 3986, appendix B).
_URL: Final = re.compile(r"(https?)://([^/?]+)([^?]*)(\?.*)?", re.IGNORECASE)
_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:@%\s]+?)\.?(:[0-9]*)?")
#: A name of a host in ASCII, in lower case (RFC 1034, section 3.1).
_NAME: Final = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
#: Characters that stay as they are written after the authority: those of RFC 3986, and those that
#: servers read alike whether they are encoded or not.
_KEPT: Final = "!$%&'()*+,-./:;=?@[]_~|"
_PROXY: Final = re.compile(r"http://(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})/?")


class Refused(Exception):
    """The text is no URL that may be asked for."""


def parse(text: str) -> DecodedURL:
    """Return ``text`` as a URL, in the form in which it is sent.

    As browsers and curl do: what is percent-encoded stays as it is written, spaces and characters
    outside of ASCII are encoded as UTF-8, ``.`` and ``..`` are resolved, a fragment is dropped, and
    so are the dot at the end of a name and an empty port.

    :raises Refused: it is none, or has a form that serves to deceive.
    """
    text = text.strip()
    if _SUSPECT.search(text):
        raise Refused("has a form that is not allowed")
    found = _URL.fullmatch(text.partition("#")[0])
    if found is None:
        raise Refused("is not an http or https URL")
    scheme, authority, path, query = found.groups(default="")
    host = _HOST.fullmatch(authority)
    if host is None:
        raise Refused("has a form that is not allowed")
    name, port = host[1].lower(), host[2] or ""
    try:
        path, query = _encoded(_without_dots(path)), _encoded(query)
        # One name has one form: what is compared and judged is what is asked for.
        url = _idna(URL.from_text(f"{scheme.lower()}://{name}{port.rstrip(':')}{path}{query}"))
    except (URLParseError, ValueError, UnicodeError) as error:
        raise Refused("is not a URL") from error
    if not 0 < (url.port or 0) < 65536:
        raise Refused("has a port that there is not")
    for segment in url.path:
        plain = unquote_to_bytes(segment)
        # A server may take %2F for what divides segments.
        if {b".", b".."} & set(plain.split(b"/")) or set(plain) & set(b"\\\0"):
            raise Refused("has a path that is not allowed")
    return DecodedURL(url, lazy=True)  # of bytes that are no UTF-8 it could make nothing


def to_ask(url: DecodedURL) -> EncodedURL:
    """Return ``url`` in the form that treq makes no more of.

    Of its own it would ask for ``url.to_uri()``, which takes an IPv6 address for a name, and writes
    a query otherwise than a signature in it may be of.
    """
    scheme, _, rest = url.encoded_url.to_text().partition("://")
    return _Ready.from_text(f"{scheme}://{_encoded(rest)}")


def joined(base: DecodedURL, reference: str) -> DecodedURL:
    """Return the URL that ``reference``, of any form, means at ``base``; see :func:`parse`.

    :raises Refused: it is none that may be asked for.
    """
    reference = reference.strip()
    if _SUSPECT.search(reference):
        raise Refused("has a form that is not allowed")
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):", reference)
    if scheme is not None:
        return parse(reference)
    if reference.startswith("//"):
        return parse(f"{base.scheme}:{reference}")
    try:
        target = base.encoded_url.click(_encoded(reference.partition("#")[0]))
    except (URLParseError, ValueError, UnicodeError, NotImplementedError) as error:
        raise Refused("is not a URL") from error
    return parse(target.to_text())


def name_of(url: DecodedURL) -> str:
    """Return the last part of a URL's path, decoded: the name of a file."""
    path = url.encoded_url.path
    return unquote(path[-1], errors="replace").rpartition("/")[2] if path else ""


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
    parts = _segments(prefix)
    if parts[-1:] == [b""]:
        parts.pop()
    return _segments(url)[: len(parts)] == parts


def _segments(url: DecodedURL) -> list[bytes]:
    """Return the parts of the path, decoded as servers do: however each is written."""
    return [unquote_to_bytes(each) for each in url.encoded_url.path]


def _encoded(text: str) -> str:
    """Return ``text`` with what no URL may hold percent-encoded, and all else as it is."""
    return quote(text, safe=_KEPT)


def _idna(url: EncodedURL) -> EncodedURL:
    """Return ``url`` with its host as name servers know it.

    :raises UnicodeError: there is no such name.
    """
    if ":" in url.host:
        return url
    if url.host.isascii():
        # IDNA is not asked: name servers know more names, such as those with underscores.
        if _NAME.fullmatch(url.host) is None:
            raise UnicodeError("no name of a host")
        return url
    return url.replace(host=URL(url.scheme, url.host).to_uri().host)


def _without_dots(path: str) -> str:
    """Resolve ``.`` and ``..`` (RFC 3986, section 5.2.4)."""
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments and segments[-1] in {".", ".."}:
        kept.append("")
    return "".join(f"/{each}" for each in kept)
