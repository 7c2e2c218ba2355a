"""Sends images: opens files, URLs and standard input, and shows the progress."""

from __future__ import annotations

import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import IO, Final, cast
from urllib.parse import unquote, urlsplit

import attrs

from bootvol.cli import show, signals
from bootvol.cli.client import Client, segment
from bootvol.cli.failures import UNREACHABLE, CommandFailed
from bootvol.cli.text import shown
from bootvol.jsons import JsonObject

_IMAGES: Final = "/image/v2/images"
_PIECE: Final = 1024 * 1024
_TIMEOUT: Final = 60.0
#: The signatures of containers, with their offsets.
_SIGNATURES: Final = (
    ("qcow2", 0, b"QFI\xfb"),
    ("vmdk", 0, b"KDMV"),
    ("vhd", 0, b"conectix"),
    ("vhdx", 0, b"vhdxfile"),
    ("vdi", 0x40, b"\x7f\x10\xda\xbe"),
)


@attrs.frozen
class Opened:
    """An image to send.

    :ivar name: a name for the image.
    :ivar size: number of bytes; None if unknown.
    :ivar first: the first bytes.
    :ivar rest: the stream of the other bytes.
    """

    name: str
    size: int | None
    first: bytes
    rest: IO[bytes]

    @property
    def format(self) -> str:
        """The disk format that the first bytes show."""
        for name, offset, magic in _SIGNATURES:
            if self.first.startswith(magic, offset):
                return name
        return "iso" if self.name.lower().endswith(".iso") else "raw"

    def pieces(self) -> Iterator[bytes]:
        """Yield all bytes, and show the progress.

        :raises CommandFailed: if the image cannot be read to its end.
        """
        sent = 0
        with _bar(self.name, self.size) as advance:
            piece = self.first
            while piece:
                yield piece
                sent += len(piece)
                advance(len(piece))
                try:
                    piece = self.rest.read(_PIECE)
                except (OSError, HTTPException) as error:
                    raise CommandFailed(f"{shown(self.name)} cannot be read: {error}") from None
        if self.size not in (None, sent):
            raise CommandFailed(f"{shown(self.name)} has {sent} bytes instead of {self.size}")


def add(client: Client, place: str, **described: object) -> JsonObject:
    """Create an image of a file, a URL or standard input; return the image.

    After a failure, the service has no such image.

    :param place: a path, an http URL, or ``-``.
    :param described: properties of the image; None leaves a property to the command.
    :raises CommandFailed: if the image cannot be read, or the service refuses.
    """
    stated = {name: value for name, value in described.items() if value is not None}
    with _opened(place) as image:
        body = {
            "name": image.name,
            "disk_format": image.format,
            "container_format": "bare",
            **stated,
        }
        number = str(client.post(_IMAGES, body, "id", str))
        path = f"{_IMAGES}/{segment(number)}"
        try:
            with signals.handled(signals.interrupt):
                client.send(f"{path}/file", image.pieces(), image.size)
        except BaseException as failure:
            try:
                client.delete(path)
            except CommandFailed:
                show.tell(f"image {number} is left without data; delete it")
            if isinstance(failure, signals.Interrupted):
                raise CommandFailed("interrupted: no image is added", failure.exit_code) from None
            raise
    return client.answer(path)


@contextmanager
def _opened(place: str) -> Iterator[Opened]:
    """Open an image by its place.

    :raises CommandFailed: if the image cannot be opened.
    """
    if place == "-":
        stream = cast("IO[bytes]", sys.stdin.buffer)
        yield Opened("stdin", None, stream.read(_PIECE), stream)
        return
    try:
        if place.startswith(("http://", "https://")):
            with urllib.request.urlopen(place, timeout=_TIMEOUT) as answer:  # noqa: S310
                stated = answer.headers["Content-Length"]
                name = unquote(urlsplit(place).path.rpartition("/")[2]) or "image"
                size = int(stated) if stated else None
                yield Opened(name, size, answer.read(_PIECE), answer)
        else:
            with Path(place).open("rb") as file:
                size = Path(place).stat().st_size if Path(place).is_file() else None
                yield Opened(Path(place).name, size, file.read(_PIECE), file)
    except (OSError, HTTPException, ValueError) as error:
        code = UNREACHABLE if isinstance(error, urllib.error.URLError) else 1
        raise CommandFailed(f"{shown(place)} cannot be read: {error}", code) from None


@contextmanager
def _bar(name: str, size: int | None) -> Iterator[Callable[[int], None]]:
    """Show the progress of an upload on standard error."""
    from rich.console import Console
    from rich.progress import Progress

    from bootvol.cli.waiting import bar_columns

    console = Console(file=cast("IO[str]", show.Messages()))
    with Progress(*bar_columns(), console=console) as bar:
        task = bar.add_task(shown(name), total=size)
        yield lambda count: bar.advance(task, count)
