"""What a daemon writes down of its exports: a file ``NAME.json`` for each, in their folder."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final

import attrs

from bootvol.errors import ExportFailed
from bootvol.exports.places import socket_of, sockets_in
from bootvol.processes import Process

#: What the names of an export's files end with (sockets lay beside the records once).  Whatever
#: else is in the folder is somebody else's: it is neither taken for an export nor removed.
_SUFFIXES: Final = (".json", ".new", ".sock")


@attrs.frozen
class Record:
    """An export.

    :ivar lies: the volume's kind and path.
    :ivar identity: tells the volume from any other that has this path later.
    :ivar address: as in :class:`bootvol.model.Connection`.
    :ivar port: None where there is none.
    :ivar process: the server's.
    :ivar ready: the server was seen to serve.
    :ivar owner: of the volume, before the server's user became that; None if it did not.
    """

    lies: str
    identity: str
    address: str
    port: int | None
    process: Process
    ready: bool = False
    owner: int | None = None


class Records:
    """The records of one daemon.  All methods block.

    :param directory: of exports; the folder of sockets is there.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def names(self) -> set[str]:
        """Return the names of exports of which there is anything."""
        found = {path.stem for path in self._directory.iterdir() if path.suffix in _SUFFIXES}
        return found.union(path.name for path in sockets_in(self._directory).iterdir())

    def read(self, name: str) -> Record | None:
        """Return what there is of an export.

        :raises ExportFailed: it cannot be read.
        """
        path = self._directory / f"{name}.json"
        try:
            found = json.loads(path.read_bytes())
            return Record(**{**found, "process": Process(**found["process"])})
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError) as error:
            raise ExportFailed(f"What is known of export {name} is damaged.") from error

    def write(self, name: str, record: Record) -> None:
        """Write down what there is of an export, so that it survives loss of power."""
        new = self._directory / f"{name}.new"
        with new.open("w") as file:
            json.dump(attrs.asdict(record), file)
            file.flush()
            os.fsync(file.fileno())
        new.rename(self._directory / f"{name}.json")
        self._sync()

    def remove(self, name: str) -> None:
        """Strike out an export, with its socket."""
        socket_of(self._directory, name).unlink(missing_ok=True)
        for suffix in _SUFFIXES:
            (self._directory / f"{name}{suffix}").unlink(missing_ok=True)
        self._sync()

    def _sync(self) -> None:
        directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
