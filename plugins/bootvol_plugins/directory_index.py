"""The file ``index.toml`` in a folder of images, and the names of files there."""

from __future__ import annotations

import os
import time
import tomllib
import unicodedata
from collections.abc import Collection, Sequence
from pathlib import Path
from time import monotonic
from typing import Final

import attrs
from pydantic import Field, field_validator
from twisted.logger import Logger

from bootvol import reading
from bootvol.errors import SourceFailed
from bootvol.options import Options, Text

INDEX: Final = "index.toml"
#: What an entry of the index may state.
FORMATS: Final = frozenset({"raw", "iso", "qcow2", "vmdk", "vhd", "vhdx", "vdi"})
#: Seconds for which the last good index serves in the place of one that is not valid.
_STALE: Final = 3600.0
#: Seconds after which a file that is written to again has another time of change for certain.
_SETTLED: Final = 2.0


class Entry(Options):
    """One ``[[images]]`` of the index."""

    id: Text
    file: str = Field(pattern=r"^[^/.][^/]*$")
    name: str | None = None
    format: str | None = None
    min_disk: int = Field(default=0, ge=0, le=2**31 - 1)
    sha512: str | None = Field(default=None, pattern=r"^[0-9A-Fa-f]{128}$")


class Index(Options):
    """The index file as a whole."""

    images: list[Entry] = Field(default=[])

    @field_validator("images")
    @classmethod
    def _ids_differ(cls, value: list[Entry]) -> list[Entry]:
        if len({entry.id for entry in value}) < len(value):
            raise ValueError("an id is given twice")
        return value


@attrs.frozen
class _Read:
    """What an index said.

    :ivar at: seconds of the clock that nobody sets.
    :ivar file: what tells the file from others; None if it may change and look the same.
    """

    entries: Sequence[Entry]
    at: float
    file: tuple[int, ...] | None


class IndexFile:
    """The index of one folder.

    While the index is not valid, as when somebody is editing it, the last good one serves for an
    hour.

    Methods block, and may be called in several threads at once.

    :param name: of the source.
    :param directory: the folder.
    """

    _log = Logger()

    def __init__(self, name: str, directory: Path) -> None:
        self._name = name
        self._directory = directory
        #: What the last good index said, when it was last looked at, and which file it was.
        self._last: _Read | None = None
        self._is_valid = True

    def entries(self) -> Sequence[Entry]:
        """Return what the index says; nothing where there is none.

        An index of thousands of images takes a second to read, so the file is read when it has
        changed.

        :raises SourceFailed: the index is not valid, and there is no good one of the last hour.
        """
        entries: Sequence[Entry]
        try:
            file, last = _identity(os.stat(self._directory / INDEX)), self._last
            if last is not None and file is not None and file == last.file:
                entries = last.entries
            else:
                entries = read_index(self._directory).images
        except FileNotFoundError:
            entries, file = [], None
        except (OSError, ValueError) as error:
            return self._last_entries(error)
        if not self._is_valid:
            self._log.info("source {name}: {index} is valid again", name=self._name, index=INDEX)
        self._is_valid = True
        self._last = _Read(entries, monotonic(), file)
        return entries

    def _last_entries(self, error: Exception) -> Sequence[Entry]:
        """Return what the last good index said; the log says what is wrong with this one.

        :raises SourceFailed: there was none, or it is too old.
        """
        if self._is_valid:
            self._is_valid = False
            self._log.error(
                "source {name}: {index} is not valid; the last good one serves meanwhile: {error}",
                name=self._name,
                index=INDEX,
                error=error,
            )
        if self._last is None or monotonic() - self._last.at > _STALE:
            # What is wrong with it is for the operator, who has it in the log.
            raise SourceFailed(f"Source {self._name}: {INDEX} is not valid.") from None
        return self._last.entries


class Names:
    """Finds names that read the same, whichever form (NFC or NFD) each of them has.

    :param names: those that there are.
    """

    def __init__(self, names: Collection[str]) -> None:
        self._names = names
        self._alike: dict[str, list[str]] | None = None

    def meant(self, wanted: str) -> str | None:
        """Return the name that is wanted: it itself, or the only one that reads the same.

        :returns: None if there is none, or if there are several.
        """
        if wanted in self._names:
            return wanted
        if self._alike is None:
            self._alike = {}
            for name in self._names:
                self._alike.setdefault(_composed(name), []).append(name)
        alike = self._alike.get(_composed(wanted), [])
        return alike[0] if len(alike) == 1 else None


def read_index(directory: Path) -> Index:
    """Read the index of a folder; blocks.

    :raises OSError: it cannot be read.
    :raises ValueError: it is not valid.
    """
    text = reading.content(directory / INDEX).decode("utf-8-sig")
    return Index.model_validate(tomllib.loads(text))


def is_shown(name: str) -> bool:
    """Tell whether a file is an image; one whose name is no text cannot be asked for.

    Control characters and bytes that are no UTF-8 are no text; spaces and joiners of any script are
    (Unicode Standard, section 4.5, "General Category").
    """
    if name == INDEX or name.startswith("."):
        return False
    # Most names are printable, which Python tells a hundred times faster.
    return name.isprintable() or not any(
        unicodedata.category(each) in ("Cc", "Cs") for each in name
    )


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _identity(file: os.stat_result) -> tuple[int, ...] | None:
    """Return what changes whenever a file does; None if it was written to just now.

    Two writes within one tick of the file system's clock leave the same time behind.
    """
    if time.time() - max(file.st_mtime, file.st_ctime) < _SETTLED:
        return None
    return file.st_dev, file.st_ino, file.st_size, file.st_mtime_ns, file.st_ctime_ns
