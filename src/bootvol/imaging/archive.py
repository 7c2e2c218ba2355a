"""Extracts the one disk from a tar archive as the archive streams by.

Google's images are a ``disk.raw`` in tar.gz, often with holes.  An OVA (DMTF DSP0243) is a tar
archive with a description, one vmdk or several, and perhaps an ISO image for the drive.  No member
is extracted to a file, and only headers are read of all members but the disk.

Sources of the format: POSIX, pax, "pax Interchange Format" and "ustar Interchange Format"; GNU
tar's manual, "Basic Tar Format" and "Storing Sparse Files".
"""

from __future__ import annotations

import tarfile
from collections.abc import Generator, Iterable, Iterator
from enum import Enum, auto
from typing import Final

from bootvol.errors import ImageAmbiguous, ImageBomb, ImageCorrupt, UnsupportedFormat

#: File name extensions of disks.  Other members are skipped.
_DISKS: Final = ("raw", "img", "iso", "qcow2", "vmdk", "vhd", "vhdx", "vdi")
#: File name extension of an OVA's first member.  An ISO image in an OVA is no disk (DMTF DSP0243,
#: "OVF Package").
_OVF: Final = ".ovf"
_BLOCK: Final = 512
#: The most headers in an archive.
_MOST_HEADERS: Final = 1000
#: The most bytes in a member that describes the next member, and in all descriptions together.  A
#: second passes with a MiB of tiny records, and a packed archive has gigabytes of them.
_LONGEST: Final = 1024 * 1024
_MOST_DESCRIBED: Final = 4 * 1024 * 1024
#: The most parts of a file with holes.
_MOST_PARTS: Final = 100_000
#: The most bytes of a number and its line end.
_LONGEST_NUMBER: Final = 20

#: The keys of pax headers that are kept: other keys would waste memory.
_KEYS: Final = (
    "path",
    "size",
    *(f"GNU.sparse.{each}" for each in ("major", "name", "map", "realsize", "size", "numblocks")),
)
#: In GNU's format 0.0 these two alternate, once for each part.  Together they are the map of format
#: 0.1.
_PARTS: Final = ("GNU.sparse.offset", "GNU.sparse.numbytes")
_MAP: Final = "GNU.sparse.map"

_REGULAR: Final = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
#: Types of members that describe the next member.
_DESCRIBING: Final = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
#: Types of members without data, even if the header states a size.
_EMPTY: Final = (
    tarfile.LNKTYPE,
    tarfile.SYMTYPE,
    tarfile.CHRTYPE,
    tarfile.BLKTYPE,
    tarfile.DIRTYPE,
    tarfile.FIFOTYPE,
)


class _Do(Enum):
    """The next action on the bytes of the archive."""

    TAKE = auto()
    #: Take the bytes, if any.  Without bytes, the archive has ended without its final block.
    TAKE_IF_ANY = auto()
    SKIP = auto()
    COPY = auto()
    ZERO = auto()


_TAKING: Final = (_Do.TAKE, _Do.TAKE_IF_ANY)
_Steps = Generator[tuple[_Do, int], bytes, None]


class Tar:
    """A decoder from an archive to the one disk inside: see :class:`bootvol.decoders.Decoder`."""

    def __init__(self) -> None:
        self.eof = False
        self.unused_data = b""
        self._bytes = bytearray()
        self._steps = _archive()
        self._do, self._left = next(self._steps)

    @property
    def whole(self) -> bool:
        """True if the archive may end here, with or without a block of zeros, as for tar(1)."""
        return self.eof or (self._do is _Do.TAKE_IF_ANY and not self._bytes)

    def decompress(self, data: bytes | memoryview, max_length: int) -> bytes:
        """Return no more than ``max_length`` bytes of the disk.

        :raises ImageCorrupt: if the archive is broken.
        :raises UnsupportedFormat: if the archive has no disk, or a disk in an unsupported form.
        :raises ImageAmbiguous: if the archive has several disks.
        :raises ImageBomb: if the archive has too many members, or its disk too many parts.
        """
        self._bytes += data
        out = bytearray()
        while not self.eof:
            size = self._now(max_length - len(out))
            if not size and self._left:
                break
            if self._do is _Do.ZERO:
                out += bytes(size)
            else:
                if self._do is _Do.COPY:
                    out += self._bytes[:size]
                taken = bytes(self._bytes[:size]) if self._do in _TAKING else b""
                del self._bytes[:size]
            self._left -= size
            if not self._left:
                self._next(taken if self._do in _TAKING else b"")
        return bytes(out)

    def _now(self, room: int) -> int:
        """Return the number of bytes that can be processed now."""
        if self._do is _Do.ZERO:
            return min(self._left, room)
        if self._do is _Do.COPY:
            return min(self._left, room, len(self._bytes))
        if self._do is _Do.SKIP:
            return min(self._left, len(self._bytes))
        return self._left if len(self._bytes) >= self._left else 0

    def _next(self, taken: bytes) -> None:
        try:
            self._do, self._left = self._steps.send(taken)
        except StopIteration:
            self.eof = True
            self.unused_data = bytes(self._bytes)
            self._bytes.clear()


def _archive() -> _Steps:  # noqa: C901 - one step after the other, as they lie in the archive
    """Read an archive to its end: a block of zeros, or the end of the stream."""
    disk, of_ova = "", False
    described: dict[str, str] = {}
    everywhere: dict[str, str] = {}
    left = _MOST_DESCRIBED
    for _ in range(_MOST_HEADERS):
        block = yield _Do.TAKE_IF_ANY if disk and not described else _Do.TAKE, _BLOCK
        if not any(block):
            if not disk:
                raise UnsupportedFormat(
                    "The image is a tar archive without a disk: no file's name ends in"
                    f" {', '.join(_DISKS)}."
                )
            return
        header = _header(block)
        size = header.size
        kind = header.type
        if kind in _DESCRIBING:
            if size > _LONGEST:
                raise ImageCorrupt("The tar archive is broken: a header is too long.")
            left = _less(left, size)
            data = yield _Do.TAKE, size + -size % _BLOCK
            if kind == tarfile.GNUTYPE_LONGNAME:
                described["path"] = data[:size].rstrip(b"\0").decode("utf-8", "replace")
            elif kind == tarfile.XGLTYPE:
                everywhere.update(_pax(data[:size]))
            elif kind != tarfile.GNUTYPE_LONGLINK:
                described.update(_pax(data[:size]))
            continue
        says = {**everywhere, **described}
        described = {}
        size = _number(says["size"]) if "size" in says else size
        name = says.get("GNU.sparse.name") or says.get("path") or header.name
        fields: list[bytes] = []
        whole = size
        if kind == tarfile.GNUTYPE_SPARSE:
            fields, whole = yield from _old_map(block)
            left = _less(left, len(b"".join(fields)))
        elif kind not in _REGULAR:
            if kind == b"M":
                raise UnsupportedFormat("The image is one of several volumes of a tar archive.")
            if kind not in _EMPTY:
                yield _Do.SKIP, size + -size % _BLOCK
            continue
        of_ova = of_ova or name.lower().endswith(_OVF)
        if not _is_disk(name) or (of_ova and name.lower().endswith(".iso")):
            yield _Do.SKIP, size + -size % _BLOCK
            continue
        if disk:
            raise ImageAmbiguous(f"The tar archive has several disks: {disk}, {_shown(name)}.")
        disk = _shown(name)
        if any(key.startswith("GNU.sparse.") for key in says):
            whole = _number(says.get("GNU.sparse.realsize") or says.get("GNU.sparse.size", ""))
            if says.get("GNU.sparse.major") == "1":
                parts, length = yield from _map_in_data(size)
                yield from _sparse(parts, size - length, whole)
            else:
                told = says.get(_MAP)
                numbers = [_number(each) for each in told.split(",")] if told else []
                yield from _sparse(_pairs(numbers), size, whole)
        elif kind == tarfile.GNUTYPE_SPARSE:
            # The fields of an unused part are empty.
            numbers = [_field(each) for each in fields if each.strip(b"\0 ")]
            yield from _sparse(_pairs(numbers), size, whole)
        else:
            yield _Do.COPY, size
        yield _Do.SKIP, -size % _BLOCK
    raise ImageBomb("The tar archive has more members than bootvol reads.")


def _less(left: int, size: int) -> int:
    """Return how many bytes of descriptions may still come.

    :param left: how many bytes might come so far.
    :param size: the number of bytes that came now.
    :raises ImageBomb: if these are too many.
    """
    if size > left:
        raise ImageBomb("The headers of the tar archive are longer than bootvol reads.")
    return left - size


def _sparse(parts: Iterable[tuple[int, int]], size: int, whole: int) -> _Steps:
    """Copy a file with holes.

    :param parts: offset and length of each stored part, in bytes.
    :param size: size of all parts together, in bytes.
    :param whole: size of the file, in bytes.
    """
    at = 0
    for offset, length in parts:
        if offset < at or offset + length > whole or length > size:
            raise ImageCorrupt(
                "The tar archive is broken: the parts of its disk overlap or have gaps."
            )
        yield _Do.ZERO, offset - at
        yield _Do.COPY, length
        at = offset + length
        size -= length
    if size:
        raise ImageCorrupt("The tar archive is broken: its disk is longer than stated.")
    yield _Do.ZERO, whole - at


def _old_map(block: bytes) -> Generator[tuple[_Do, int], bytes, tuple[list[bytes], int]]:
    """Return the fields of the parts of a file in GNU's old format, and the size of the file."""
    fields = [block[place : place + 12] for place in range(386, 482, 12)]
    more, whole = block[482], _field(block[483:495])
    while more:
        if len(fields) > 2 * _MOST_PARTS:
            raise ImageBomb("The tar archive has a disk in more parts than bootvol reads.")
        block = yield _Do.TAKE, _BLOCK
        fields += [block[place : place + 12] for place in range(0, 504, 12)]
        more = block[504]
    return fields, whole


def _map_in_data(
    size: int,
) -> Generator[tuple[_Do, int], bytes, tuple[Iterable[tuple[int, int]], int]]:
    """Return the parts of a file in GNU's format 1.0, and the size of their map in bytes."""
    data = yield _Do.TAKE, _BLOCK
    first, newline, _ = data.partition(b"\n")
    count = _number(first.decode("latin-1")) if newline else _MOST_PARTS + 1
    blocks, lines = [data], data.count(b"\n")
    while lines <= 2 * count:
        length = len(blocks) * _BLOCK
        too_long = length > (2 * count + 1) * _LONGEST_NUMBER
        if count > _MOST_PARTS or too_long or length >= size:
            raise ImageCorrupt("The tar archive is broken: the map of holes is missing or invalid.")
        blocks.append((yield _Do.TAKE, _BLOCK))
        lines += blocks[-1].count(b"\n")
    told = b"".join(blocks)
    numbers = [_number(each.decode("latin-1")) for each in told.split(b"\n")[1 : 2 * count + 1]]
    length = len(told)
    return _pairs(numbers), length


def _pairs(numbers: list[int]) -> Iterator[tuple[int, int]]:
    if len(numbers) % 2 or len(numbers) > 2 * _MOST_PARTS:
        raise ImageCorrupt("The tar archive is broken: the map of holes is missing or invalid.")
    return zip(numbers[::2], numbers[1::2], strict=True)


def _header(block: bytes) -> tarfile.TarInfo:
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "replace")
    except (tarfile.HeaderError, ValueError) as error:
        raise ImageCorrupt(f"The tar archive is broken: {error}.") from error
    if not 0 <= header.size < 2**63:
        raise ImageCorrupt("The tar archive is broken: a size is invalid.")
    return header


def _field(field: bytes) -> int:
    """Return a number in a header field, in octal digits or in base 256."""
    try:
        number: int = tarfile.nti(field)  # type: ignore[attr-defined]
    except tarfile.HeaderError as error:
        raise ImageCorrupt("The tar archive is broken: a number is invalid.") from error
    return _number(str(number))


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < _LONGEST_NUMBER):
        raise ImageCorrupt("The tar archive is broken: a number is invalid.")
    return int(text)


def _pax(data: bytes) -> dict[str, str]:
    """Return the known keys and values of a pax header.

    A record is a length, a space, a key, "=", a value and a newline.
    """
    found: dict[str, str] = {}
    parts: list[str] = []
    at, end = 0, len(data.rstrip(b"\0"))
    while at < end:
        length, space, _ = data[at : at + 20].partition(b" ")
        size = _number(length.decode("latin-1"))
        record = data[at + len(length) + 1 : at + size]
        key, equals, value = record.partition(b"=")
        if not space or not equals or not value.endswith(b"\n") or at + size > len(data):
            raise ImageCorrupt("The tar archive is broken: a pax header is invalid.")
        at += size
        name = key.decode("utf-8", "replace")
        if name in _PARTS:
            if name != _PARTS[len(parts) % 2]:
                raise ImageCorrupt(
                    "The tar archive is broken: the parts of its disk overlap or have gaps."
                )
            parts.append(value[:-1].decode("utf-8", "replace"))
        elif name in _KEYS:
            found[name] = value[:-1].decode("utf-8", "replace")
    if parts:
        found[_MAP] = ",".join(parts)
    return found


def _is_disk(name: str) -> bool:
    base = name.rstrip("/").rpartition("/")[2].lower()
    # macOS keeps the metadata of a file in a second file with the prefix "._".
    return base.endswith(tuple(f".{each}" for each in _DISKS)) and not base.startswith("._")


def _shown(name: str) -> str:
    return "".join(each if each.isprintable() else "?" for each in name[:100])
