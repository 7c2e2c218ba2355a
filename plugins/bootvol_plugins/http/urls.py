"""Checks of URLs before requests.  The request uses the same object as the check."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote, unquote, unquote_to_bytes

from hyperlink import URL, DecodedURL, EncodedURL, URLParseError

#: Most characters of a URL, as many as servers should take (RFC 9110, section 4.1), and of a host's
#: name (RFC 1035, section 2.3.4).  A redirect may be longer, and takes time and lines of the log.
_LONGEST: Final = 8000
_LONGEST_HOST: Final = 253
#: Programs disagree on the meaning of these characters. No image needs them.
_SUSPECT: Final = re.compile(r"[\x00-\x1f\x7f\\]")
#: An http or https URL without fragment: scheme, authority, path, query (RFC 3986, appendix B).
_URL: Final = re.compile(r"(https?)://([^/?]+)([^?]*)(\?.*)?", re.IGNORECASE)
_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:@%\s]+?)\.?(:[0-9]*)?")
#: Dots alone, except for spaces and parameters.
_DOTS: Final = re.compile(rb"[ \t]*\.[. \t]*(;|$)")
#: A host name in ASCII and lower case (RFC 1034, section 3.1).
_NAME: Final = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
#: Characters behind the authority that stay unchanged: the characters of RFC 3986, and characters
#: that mean the same to servers with and without percent-encoding.
_KEPT: Final = "!$%&'()*+,-./:;=?@[]_~|"
_PROXY: Final = re.compile(r"http://(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})/?")


class Refused(Exception):
    """The text is not an acceptable URL."""


def parse(text: str) -> DecodedURL:
    """Return ``text`` as a URL in the form for requests.

    The rules are those of browsers and curl.  Existing percent-encoding stays.  Spaces and
    non-ASCII characters are encoded as UTF-8.  ``.`` and ``..`` are resolved.  A fragment, the dot
    at the end of a host name and an empty port are dropped.

    :raises Refused: if ``text`` is not a URL, or has a deceptive form.
    """
    text = _checked(text)
    found = _URL.fullmatch(text.partition("#")[0])
    if found is None:
        raise Refused("is not an http or https URL")
    scheme, authority, path, query = found.groups(default="")
    host = _HOST.fullmatch(authority)
    if host is None or len(host[1]) > _LONGEST_HOST:
        raise Refused("has a form that is not allowed")
    name, port = host[1].lower(), host[2] or ""
    try:
        path, query = _encoded(_without_dots(path)), _encoded(query)
        # Each name has one form, so checks and requests use the same name.
        url = _idna(URL.from_text(f"{scheme.lower()}://{name}{port.rstrip(':')}{path}{query}"))
    except (URLParseError, ValueError, UnicodeError) as error:
        raise Refused("is not a URL") from error
    if not 0 < (url.port or 0) < 65536:
        raise Refused("has an impossible port")
    if any(map(_is_deceptive, url.path)):
        raise Refused("has a path that is not allowed")
    return DecodedURL(url, lazy=True)  # lazy, because the bytes may not be UTF-8


def _checked(text: str) -> str:
    """Return a URL or a reference without surrounding spaces, if its characters are acceptable."""
    text = text.strip()
    if len(text) > _LONGEST:
        raise Refused(f"has more than {_LONGEST} characters")
    if _SUSPECT.search(text):
        raise Refused("has a form that is not allowed")
    return text


def to_ask(url: DecodedURL) -> EncodedURL:
    """Return ``url`` in a form that treq does not change.

    Otherwise treq would request ``url.to_uri()``.  ``to_uri()`` treats an IPv6 address as a name,
    and changes the form of a query, so a signature in the query may become invalid.
    """
    scheme, _, rest = url.encoded_url.to_text().partition("://")
    return _Ready.from_text(f"{scheme}://{_encoded(rest)}")


def joined(base: DecodedURL, reference: str) -> DecodedURL:
    """Return the URL of ``reference``, relative to ``base``, in the form of :func:`parse`.

    :param reference: an absolute or relative reference.
    :raises Refused: if the result is not an acceptable URL.
    """
    reference = _checked(reference)
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


def _is_deceptive(segment: str) -> bool:
    """Tell whether some server may take a segment of a path for ``.`` or ``..``, or for several.

    Some servers decode twice, separate segments at %2F, drop parameters (``..;x``; RFC 3986,
    section 3.3), or drop dots and spaces at the end of names.
    """
    once = unquote_to_bytes(segment)
    return any(
        set(plain) & set(b"\\\0") or any(map(_DOTS.match, plain.split(b"/")))
        for plain in (once, unquote_to_bytes(once))
    )


def name_of(url: DecodedURL) -> str:
    """Return the decoded last part of a URL's path: the file's name."""
    path = url.encoded_url.path
    return unquote(path[-1], errors="replace").rpartition("/")[2] if path else ""


class _Ready(EncodedURL):
    """A URL with all parts in their final form."""

    def to_uri(self) -> EncodedURL:
        return self


def parse_proxy(text: str) -> tuple[str, int]:
    """Return the host and port of a proxy.

    :raises Refused: if ``text`` is not the URL of a proxy.
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
    """Return the segments of the path, decoded as servers do, independent of their spelling."""
    return [unquote_to_bytes(each) for each in url.encoded_url.path]


def _encoded(text: str) -> str:
    """Percent-encode the characters that URLs may not contain, and leave all others."""
    return quote(text, safe=_KEPT)


def _idna(url: EncodedURL) -> EncodedURL:
    """Return ``url`` with the host's DNS name.

    :raises UnicodeError: if the name is invalid.
    """
    if ":" in url.host:
        return url
    # Skip IDNA for ASCII, because DNS allows more names, for example names with underscores.
    if not url.host.isascii():
        url = url.replace(host=URL(url.scheme, url.host).to_uri().host)
    if _NAME.fullmatch(url.host) is None:
        raise UnicodeError("no name of a host")
    return url


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
