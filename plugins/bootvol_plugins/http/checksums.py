"""Lists of digests that lie beside images, in the forms in which projects publish them."""

from __future__ import annotations

import codecs
import re
import unicodedata
from typing import Final

import attrs

from bootvol.model import Digest

#: The longest list that is read, in bytes.
LONGEST: Final = 1024 * 1024

#: Algorithms, the strongest first, by the length of their digests in hex.
_BY_LENGTH: Final = {128: "sha512", 96: "sha384", 64: "sha256", 56: "sha224", 40: "sha1", 32: "md5"}
_STRENGTH: Final = list(_BY_LENGTH.values())

_HEX: Final = r"(?P<digest>[0-9A-Fa-f]{32,128})"
#: ``sha256sum`` and its sisters; a backslash says that the name is escaped.
_GNU: Final = re.compile(rf"(?P<escaped>\\?)(?:(?P<tag>[A-Za-z0-9-]+):)?{_HEX}\s+\*?(?P<name>\S.*)")
#: ``sha256sum --tag``, BSD's ``sha256`` and ``openssl dgst``.
_BSD: Final = re.compile(rf"(?P<escaped>\\?)(?P<tag>[A-Za-z0-9/-]+) ?\((?P<name>.+)\) ?= ?{_HEX}")
_BARE: Final = re.compile(_HEX)
_TAGS: Final = re.compile(r"(?:SHA-?2?-?)(1|224|256|384|512)|(MD5)", re.IGNORECASE)
_ESCAPES: Final = {"\\\\": "\\", "\\n": "\n", "\\r": "\r"}
#: Lists of algorithms whose digests look like those of another.
_OTHER: Final = re.compile(r"b2|blake|sha3|b3", re.IGNORECASE)
#: A comment that says of which algorithm the lines below it are (Gentoo, Flatcar).
_HEADING: Final = re.compile(r"#\s*(?P<tag>[A-Za-z0-9-]+) HASH", re.IGNORECASE)

_SIGNED: Final = "-----BEGIN PGP SIGNED MESSAGE-----"
_SIGNATURE: Final = "-----BEGIN PGP SIGNATURE-----"


class Ambiguous(Exception):
    """A list states several digests for one name."""


@attrs.frozen
class _Entry:
    """A line of a list.

    :ivar name: with the directories that it stands in, if any; None is the one file that the list
        is of.
    """

    name: str | None
    digest: Digest


def text_of(data: bytes) -> str:
    """Return the text of a list: in UTF-8, or in what its byte order mark says (PowerShell)."""
    utf_16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return data.decode("utf-16" if utf_16 else "utf-8", "replace")


def find_digest(
    text: str, path: str, listed_in: str = "", *, by_list: bool = False
) -> Digest | None:
    """Return the strongest digest that a list states for a file.

    Where the list names paths, the one that agrees with the file's for longest counts.

    :param path: where the file is, decoded; its last part is its name.
    :param listed_in: the name of the list: that of another algorithm than the lengths of digests
        tell is no list that can be used.
    :param by_list: whether the list is named for the file.  If it has one file only, it is of that,
        whatever that is called there (openSUSE's links to the newest build).
    :returns: None if it states none.
    :raises Ambiguous: there are several of one algorithm, equally good.
    """
    if _OTHER.match(listed_in):
        return None
    entries = list(_entries(text))
    bare = [each for each in entries if each.name is None]
    if len(entries) == len(bare) == 1:
        return bare[0].digest
    named = {each.name or "" for each in entries}
    parts = _parts(named.pop() if by_list and len(named) == 1 else path)
    found = [(_agreement(each.name, parts), each) for each in entries if each.name is not None]
    found = [(agreed, each) for agreed, each in found if agreed[1]]
    best = max((agreed for agreed, _ in found), default=None)
    digests = {each.digest for agreed, each in found if agreed == best}
    for algorithm in _STRENGTH:
        of_it = {each for each in digests if each.algorithm == algorithm}
        if len(of_it) > 1:
            raise Ambiguous
        if of_it:
            return of_it.pop()
    return None


def _entries(text: str) -> list[_Entry]:
    lines = _signed_part(text.lstrip("\ufeff").split("\n"))
    entries = []
    tag: str | None = None
    for line in map(str.strip, lines):
        heading = _HEADING.fullmatch(line)
        tag = tag if heading is None else heading["tag"]
        entry = _entry(line, tag)
        if entry is not None:
            entries.append(entry)
    return entries


def _signed_part(lines: list[str]) -> list[str]:
    """Return the lines that a clearsigned text is of (RFC 9580, section 7), or all of another."""
    if not lines or lines[0].strip() != _SIGNED:
        return lines
    stripped = [line.rstrip() for line in lines]
    begin = stripped.index("") + 1 if "" in stripped else len(lines)
    end = stripped.index(_SIGNATURE) if _SIGNATURE in stripped else len(lines)
    return [line.removeprefix("- ") for line in lines[begin:end]]


def _entry(line: str, heading: str | None) -> _Entry | None:
    """Return what a line states; None if that is no digest.

    :param heading: the algorithm that a line says which stands above.
    """
    if not line or line[0] in "#;":
        return None
    found = _BSD.fullmatch(line) or _GNU.fullmatch(line)
    if found is None:
        found = _BARE.fullmatch(line)
        digest = None if found is None else _digest(heading, found["digest"])
        return None if digest is None else _Entry(None, digest)
    digest = _digest(found["tag"] or heading, found["digest"])
    if digest is None:
        return None
    name = found["name"]
    if found["escaped"]:
        name = re.sub(r"\\[\\nr]", lambda each: _ESCAPES[each[0]], name)
    return _Entry(name, digest)


def _digest(tag: str | None, value: str) -> Digest | None:
    """Return a digest, if its algorithm is one that is computed."""
    algorithm = _BY_LENGTH.get(len(value))
    if algorithm is not None and tag is not None:
        found = _TAGS.fullmatch(tag)
        said = f"sha{found[1]}" if found and found[1] else "md5" if found else None
        algorithm = algorithm if algorithm == said else None
    return None if algorithm is None else Digest(algorithm, value.lower())


def _parts(path: str) -> list[str]:
    """Return the parts of a path, as they are compared: a name may be composed or not."""
    normal = unicodedata.normalize("NFC", path.replace("\\", "/"))
    return [part for part in normal.split("/") if part not in {"", "."}]


def _agreement(name: str | None, parts: list[str]) -> tuple[bool, int]:
    """Return how well a listed name agrees with where the file is.

    :returns: whether all of it does, and how many of its last parts do.
    """
    own = _parts(name or "")
    length = 0
    for one, other in zip(reversed(own), reversed(parts), strict=False):
        if one != other:
            break
        length += 1
    return length == len(own), length
