"""The file ``index.toml`` in a folder of images, and the file names there."""

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
from pydantic import Field, ValidationError, field_validator
from twisted.logger import Logger

from bootvol import reading
from bootvol.errors import SourceFailed
from bootvol.options import Options, Text

INDEX: Final = "index.toml"
#: The formats that an entry of the index may state.
FORMATS: Final = frozenset({"raw", "iso", "qcow2", "vmdk", "vhd", "vhdx", "vdi"})
#: Seconds for which the last good index replaces an invalid one.
_STALE: Final = 3600.0
#: The most faults of an index in a message, and the most characters of their text.
_SHOWN: Final = 3
_LONGEST: Final = 500
#: Seconds after which a further write to a file surely gives another time of change.
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
    """The whole index file."""

    images: list[Entry] = Field(default=[])

    @field_validator("images")
    @classmethod
    def _ids_differ(cls, value: list[Entry]) -> list[Entry]:
        if len({entry.id for entry in value}) < len(value):
            raise ValueError("an id is given twice")
        return value


@attrs.frozen
class _Read:
    """The content of an index that was read.

    :ivar at: the time of reading, in seconds of the monotonic clock.
    :ivar file: the file's identity; None if a further write might not change the identity.
    """

    entries: Sequence[Entry]
    at: float
    file: tuple[int, ...] | None


class IndexFile:
    """The index of one folder.

    While the index is invalid, for example during an edit, the last good one serves for an hour.

    Methods block. Several threads may call them at once.

    :param name: the source's name.
    :param directory: the folder.
    """

    _log = Logger()

    def __init__(self, name: str, directory: Path) -> None:
        self._name = name
        self._directory = directory
        #: The last good index, with the time of the last look and the file's identity.
        self._last: _Read | None = None
        self._is_valid = True
        #: The identity of the file that was last found invalid.
        self._invalid: tuple[int, ...] | None = None

    def entries(self) -> Sequence[Entry]:
        """Return the entries of the index; none if the file does not exist.

        Reading an index of thousands of images takes a second, so only a changed file is read.

        :raises SourceFailed: if the index is invalid, and no index of the last hour was good.
        """
        entries: Sequence[Entry]
        file: tuple[int, ...] | None = None
        try:
            file, last = _identity(os.stat(self._directory / INDEX)), self._last
            if file is not None and file == self._invalid:
                return self._last_entries()
            if last is not None and file is not None and file == last.file:
                entries = last.entries
            else:
                entries = read_index(self._directory).images
        except FileNotFoundError:
            entries, file = [], None
        except OSError as error:
            self._note_fault(error)
            return self._last_entries()
        except ValueError as error:
            self._invalid = file
            self._note_fault(error)
            return self._last_entries()
        if not self._is_valid:
            self._log.info("source {name}: {index} is valid again", name=self._name, index=INDEX)
        self._is_valid = True
        self._last = _Read(entries, monotonic(), file)
        return entries

    def _note_fault(self, error: Exception) -> None:
        """Log the fault of the index, once until the index is valid again."""
        if self._is_valid:
            self._is_valid = False
            self._log.error(
                "source {name}: {index} is not valid; the last good one serves meanwhile: {error}",
                name=self._name,
                index=INDEX,
                error=error,
            )

    def _last_entries(self) -> Sequence[Entry]:
        """Return the entries of the last good index.

        :raises SourceFailed: if no good index exists, or the last good one is too old.
        """
        if self._last is None or monotonic() - self._last.at > _STALE:
            # The fault is the operator's matter, and is in the log.
            raise SourceFailed(f"Source {self._name}: {INDEX} is not valid.") from None
        return self._last.entries


class Names:
    """Finds names that read the same in either Unicode form (NFC or NFD).

    :param names: the existing names.
    """

    def __init__(self, names: Collection[str]) -> None:
        self._names = names
        self._alike: dict[str, list[str]] | None = None

    def meant(self, wanted: str) -> str | None:
        """Return the wanted name if it exists, or else the only name that reads the same.

        :returns: the name; None if no name or several names read the same.
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
    """Read the index of a folder. Blocks.

    :raises OSError: if the index cannot be read.
    :raises ValueError: if the index is invalid.
    """
    try:
        text = reading.content(directory / INDEX).decode("utf-8-sig")
        return Index.model_validate(tomllib.loads(text))
    except ValidationError as error:
        raise ValueError(_faults(error)) from None
    except RecursionError:
        raise ValueError("its values are nested too deep") from None
    except ValueError as error:
        raise ValueError(_shown(str(error))) from None


def _faults(error: ValidationError) -> str:
    """Return the first faults of an index in one bounded line."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    named = (f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in found[:_SHOWN])
    more = f"; and {len(found) - _SHOWN} more faults" if len(found) > _SHOWN else ""
    return _shown("; ".join(named)) + more


def _shown(text: str) -> str:
    return "".join(each if each.isprintable() else "?" for each in text[:_LONGEST])


def is_shown(name: str) -> bool:
    """Return whether a file is an image. A file whose name is not text cannot be requested.

    Control characters and bytes that are not UTF-8 are not text. Spaces and joiners of any script
    are text (Unicode Standard, section 4.5, "General Category").
    """
    if name == INDEX or name.startswith("."):
        return False
    # Most names are printable, and Python tests that a hundred times faster.
    return name.isprintable() or not any(
        unicodedata.category(each) in ("Cc", "Cs") for each in name
    )


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _identity(file: os.stat_result) -> tuple[int, ...] | None:
    """Return a value that changes with each change of the file; None after a very recent write.

    Two writes within one tick of the file system's clock leave the same time.
    """
    if time.time() - max(file.st_mtime, file.st_ctime) < _SETTLED:
        return None
    return file.st_dev, file.st_ino, file.st_size, file.st_mtime_ns, file.st_ctime_ns
