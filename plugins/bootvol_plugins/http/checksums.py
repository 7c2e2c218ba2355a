"""Parser of the lists of digests that projects publish beside images."""

from __future__ import annotations

import codecs
import re
import unicodedata
from typing import Final

import attrs

from bootvol.model import Digest
from bootvol_plugins.http.list_forms import rewritten

#: Largest list in bytes, and most lines of a list: more than fit with a digest in each.
LONGEST: Final = 1024 * 1024
MOST_LINES: Final = 50_000
#: Longest line in characters: a digest, and a path of 4096 bytes (PATH_MAX).  Longer lines are
#: skipped, because no other thread runs while an expression is compared with a line.
LONGEST_LINE: Final = 8192
#: Longest name, in characters, whose marks are put in order: longer than any name on a disk. The
#: time grows with the square of the number of marks, and no other thread runs meanwhile.
_LONGEST_NAME: Final = 512

#: Algorithms by the length of their digests in hex, strongest first.
_BY_LENGTH: Final = {128: "sha512", 96: "sha384", 64: "sha256", 56: "sha224", 40: "sha1", 32: "md5"}
ALGORITHMS: Final = list(_BY_LENGTH.values())

_HEX: Final = r"(?P<digest>[0-9A-Fa-f]{32,128})"
#: The format of ``sha256sum`` and related programs. A backslash marks an escaped name.
_GNU: Final = re.compile(rf"(?P<escaped>\\?)(?:(?P<tag>[A-Za-z0-9-]+):)?{_HEX}\s+\*?(?P<name>\S.*)")
#: The format of ``sha256sum --tag``, BSD's ``sha256`` and ``openssl dgst``.
_BSD: Final = re.compile(rf"(?P<escaped>\\?)(?P<tag>[A-Za-z0-9/-]+) ?\((?P<name>.+)\) ?= ?{_HEX}")
#: A digest without a file's name, perhaps behind its algorithm: ``sha256:…`` (OCI), ``SHA256=…``.
_BARE: Final = re.compile(rf"(?:(?P<tag>[A-Za-z0-9/-]+) ?[:=] ?)?{_HEX}")
_TAGS: Final = re.compile(r"(?:SHA-?2?-?)(1|224|256|384|512)|(MD5)", re.IGNORECASE)
#: Endings of compressed images.
_PACKED: Final = re.compile(r"\.(?:gz|bz2|xz|zst)$")
_ESCAPES: Final = {"\\\\": "\\", "\\n": "\n", "\\r": "\r"}
#: An algorithm in the name of a list.  Digests of the other ones are as long as those of sha2.
_ALGORITHM: Final = re.compile(
    r"(?:^|(?<=[._-]))(?:(?P<other>b2|b3|blake(?:2[bs]?|3)?(?:-\d+)?|sha3(?:-\d+)?|shake\d+|sm3|md4"
    r"|rmd\d+|ripemd-?\d+|whirlpool|crc(?:32c?)?|xxh(?:ash|\d+)?)|sha\d+|md5)"
    r"(?:sums?)?(?=$|[._-])",
    re.IGNORECASE,
)
#: A comment with the algorithm of the lines below (Gentoo, Flatcar).
_HEADING: Final = re.compile(r"#\s*(?P<tag>[A-Za-z0-9-]+) HASH", re.IGNORECASE)

_SIGNED: Final = "-----BEGIN PGP SIGNED MESSAGE-----"
_SIGNATURE: Final = "-----BEGIN PGP SIGNATURE-----"


class Ambiguous(Exception):
    """The list states several digests for one name."""


@attrs.frozen
class _Entry:
    """A line of a list.

    :ivar name: the file's name, with directories if the list has them; None for the only file of
        the list.
    """

    name: str | None
    digest: Digest


def text_of(data: bytes) -> str:
    """Decode a list, as UTF-8 or as its byte order mark tells (PowerShell)."""
    utf_16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return data.decode("utf-16" if utf_16 else "utf-8", "replace")


def is_list(text: str) -> bool:
    """Return whether a text states any digest, of whatever file.  Blocks: uses the processor."""
    return bool(_entries(text))


def find_digest(
    text: str, path: str, listed_in: str = "", *, by_list: bool = False, bare: bool = True
) -> Digest | None:
    """Return the strongest digest that a list states for a file.  Blocks: uses the processor.

    If the list has paths, the entry with the most matching last parts counts.

    :param path: the decoded path of the file, with the file's name as last part.
    :param listed_in: the name of the list.  A list named for another algorithm (with digests of the
        same length) is not used.
    :param by_list: whether the list is named for the file.  If such a list has only one file, the
        digest counts under any name (openSUSE's links to the newest build).
    :param bare: whether a digest without a name counts, for any file.
    :returns: None if the list states no digest for the file.
    :raises Ambiguous: if the list states several digests of one algorithm that match equally well.
    """
    if is_of_another_algorithm(listed_in):
        return None
    entries = _entries(text)
    algorithms = {each.digest.algorithm for each in entries}
    if bare and len(entries) == len(algorithms) and not any(each.name for each in entries):
        # Each is a digest of the only file, by another algorithm.
        return min(
            (each.digest for each in entries),
            key=lambda digest: ALGORITHMS.index(digest.algorithm),
            default=None,
        )
    named = {each.name or "" for each in entries}
    parts = _parts(named.pop() if by_list and len(named) == 1 else path)
    image = _parts(path)[-1:]
    if parts[-1:] != image and parts[-1:] == _parts(_PACKED.sub("", path))[-1:]:
        # The list of disk.img.xz states the digest of the unpacked disk.img.
        return None
    found = [(_agreement(each.name, parts), each) for each in entries if each.name is not None]
    found = [(agreed, each) for agreed, each in found if agreed[1]]
    best = max((agreed for agreed, _ in found), default=None)
    digests = {each.digest for agreed, each in found if agreed == best}
    for algorithm in ALGORITHMS:
        of_it = {each for each in digests if each.algorithm == algorithm}
        if len(of_it) > 1:
            raise Ambiguous
        if of_it:
            return of_it.pop()
    return None


def is_of_another_algorithm(name: str) -> bool:
    """Return whether the name of a list tells an algorithm that bootvol does not compute.

    The last algorithm in the name counts: the list may have the image's name at its beginning.
    """
    found = list(_ALGORITHM.finditer(name))
    return bool(found) and found[-1]["other"] is not None


def _entries(text: str) -> list[_Entry]:
    lines = text.lstrip("\ufeff").split("\n")
    if len(lines) > MOST_LINES:
        return []
    lines = [line for line in _signed_part(lines) if len(line) <= LONGEST_LINE]
    entries = []
    tag: str | None = None
    for line in map(str.strip, rewritten(lines)):
        heading = _HEADING.fullmatch(line)
        tag = tag if heading is None else heading["tag"]
        entry = _entry(line, tag)
        if entry is not None:
            entries.append(entry)
    return entries


def _signed_part(lines: list[str]) -> list[str]:
    """Return the signed lines of a clearsigned text (RFC 9580, section 7), else all lines."""
    if not lines or lines[0].strip() != _SIGNED:
        return lines
    stripped = [line.rstrip() for line in lines]
    begin = stripped.index("") + 1 if "" in stripped else len(lines)
    end = stripped.index(_SIGNATURE) if _SIGNATURE in stripped else len(lines)
    return [line.removeprefix("- ") for line in lines[begin:end]]


def _entry(line: str, heading: str | None) -> _Entry | None:
    """Return the entry of a line; None if the line states no digest.

    :param heading: the algorithm in a heading above the line, if any.
    """
    if not line or line[0] in "#;":
        return None
    found = _BSD.fullmatch(line) or _GNU.fullmatch(line)
    if found is None:
        found = _BARE.fullmatch(line)
        digest = None if found is None else _digest(found["tag"] or heading, found["digest"])
        return None if digest is None else _Entry(None, digest)
    digest = _digest(found["tag"] or heading, found["digest"])
    if digest is None:
        return None
    name = found["name"]
    if found["escaped"]:
        name = re.sub(r"\\[\\nr]", lambda each: _ESCAPES[each[0]], name)
    return _Entry(name, digest)


def _digest(tag: str | None, value: str) -> Digest | None:
    """Return a digest; None if bootvol does not compute its algorithm."""
    algorithm = _BY_LENGTH.get(len(value))
    if algorithm is not None and tag is not None:
        found = _TAGS.fullmatch(tag)
        said = f"sha{found[1]}" if found and found[1] else "md5" if found else None
        algorithm = algorithm if algorithm == said else None
    return None if algorithm is None else Digest(algorithm, value.lower())


def _parts(path: str) -> list[str]:
    """Return the parts of a path for comparison, in NFC: names may be composed or decomposed."""
    parts = path.replace("\\", "/").split("/")
    return [
        unicodedata.normalize("NFC", part) if len(part) <= _LONGEST_NAME else part
        for part in parts
        if part not in {"", "."}
    ]


def _agreement(name: str | None, parts: list[str]) -> tuple[bool, int]:
    """Compare a listed name with a file's path.

    :returns: whether the whole name matches, and the number of matching last parts.
    """
    own = _parts(name or "")
    length = 0
    for one, other in zip(reversed(own), reversed(parts), strict=False):
        if one != other:
            break
        length += 1
    return length == len(own), length
