"""Rewrites lists of digests from PowerShell, gpg and others in the forms of ``sha256sum``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

import attrs

_HEX: Final = r"(?P<digest>[0-9A-Fa-f]{32,128})"
#: A property in PowerShell's ``Get-FileHash | Format-List``.
_PROPERTY: Final = re.compile(r"(?P<key>Algorithm|Hash|Path)\s+:\s*(?P<value>.*)")
#: A row in the table of PowerShell's ``Get-FileHash``.
_ROW: Final = re.compile(rf"(?P<tag>SHA\d+|MD5)\s+{_HEX}(?:\s+(?P<name>\S.*))?", re.IGNORECASE)
#: A file's name before its digest.
_NAME_FIRST: Final = re.compile(rf"(?P<name>\S+)\s+{_HEX}")
#: Most characters of a digest in parts, or of a path: PATH_MAX.
_LONGEST: Final = 4096
#: A part of a digest of ``gpg --print-md`` and ``gpg --print-mds``.
_PART: Final = r"(?:[0-9A-F]{8}|[0-9A-F]{4}|[0-9A-F]{2})"
_PARTS: Final = rf"{_PART}(?:\s+{_PART})*"
_FIRST_PARTS: Final = re.compile(
    rf"(?P<name>\S.*?):\s*(?:(?P<tag>[A-Z0-9]+) = )?(?P<parts>(?:{_PARTS})?)"
)
_MORE_PARTS: Final = re.compile(_PARTS)


@attrs.define
class _Record:
    """The lines about one file so far.

    :ivar lines: the lines in their own form.
    :ivar values: the algorithm, the digest and the file's name, as far as known.
    :ivar open: the value that the next line may continue.
    """

    lines: list[str]
    values: dict[str, str]
    open: str

    def more(self, line: str, value: str) -> None:
        """Continue the open value with another line."""
        self.lines.append(line)
        self.values[self.open] += value

    def rewritten(self) -> list[str]:
        """Return the record as one line; or its own lines if these have no digest."""
        digest = self.values.get("Hash", "")
        if not re.fullmatch(_HEX, digest):
            return self.lines
        return [_line(self.values.get("Algorithm"), digest, self.values.get("Path"))]


def rewritten(lines: Iterable[str]) -> Iterator[str]:
    """Yield the lines of a list, with all digests in the forms of ``sha256sum``.

    Lines in other forms stay the same.
    """
    record: _Record | None = None
    for line in map(str.rstrip, lines):
        if record is not None and _goes_on(record, line):
            continue
        if record is not None:
            yield from record.rewritten()
        record = _begun(line)
        if record is None:
            yield _rewritten(line)
    if record is not None:
        yield from record.rewritten()


def _begun(line: str) -> _Record | None:
    """Return the record that a line begins; None if the line stands alone."""
    found = _PROPERTY.fullmatch(line)
    if found is not None:
        return _Record([line], {found["key"]: found["value"]}, found["key"])
    found = _FIRST_PARTS.fullmatch(line.lstrip())
    if found is None:
        return None
    values = {"Path": found["name"], "Hash": "".join(found["parts"].split())}
    if found["tag"]:
        values["Algorithm"] = found["tag"]
    return _Record([line], values, "Hash")


def _goes_on(record: _Record, line: str) -> bool:
    """Add a line to a record, unless the line is not about the same file."""
    found = _PROPERTY.fullmatch(line)
    if len(record.values[record.open]) > _LONGEST:
        return False
    if found is not None:
        if found["key"] in record.values:
            return False
        record.values[found["key"]], record.open = "", found["key"]
        record.more(line, found["value"])
        return True
    if _PROPERTY.fullmatch(record.lines[0]):
        # PowerShell breaks long values, and indents the rest.
        if line.startswith(" "):
            record.more(line, line.strip())
        return line.startswith(" ")
    if _MORE_PARTS.fullmatch(line.strip()):
        record.more(line, "".join(line.split()))
        return True
    return False


def _rewritten(line: str) -> str:
    found = _ROW.fullmatch(line.strip())
    if found is not None:
        return _line(found["tag"], found["digest"], found["name"])
    found = _NAME_FIRST.fullmatch(line.strip())
    # Only a word with a dot looks like the name of an image.
    if found is None or "." not in found["name"] or found["name"][-1] in ":=":
        return line
    return _line(None, found["digest"], found["name"])


def _line(tag: str | None, digest: str, name: str | None) -> str:
    if not tag:
        return f"{digest}  {name}"
    return f"{tag} ({name}) = {digest}" if name else f"{tag}: {digest}"
