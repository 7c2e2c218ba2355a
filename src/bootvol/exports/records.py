"""The records of a daemon's exports: a file ``NAME.json`` for each, in the folder of exports."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Final

import attrs
from twisted.logger import Logger

from bootvol import files
from bootvol.errors import ExportFailed
from bootvol.exports.listeners import socket_of, sockets_in
from bootvol.processes import Process

#: Suffixes of an export's files (sockets once lay beside the records).  All other files in the
#: folder are somebody else's: the daemon takes them for no exports, and does not remove them.
_SUFFIXES: Final = (".json", ".new", ".sock")


@attrs.frozen
class Record:
    """The record of an export.

    :ivar lies: kind and path of the volume.
    :ivar identity: distinguishes the volume from any other volume with this path later.
    :ivar address: as in :class:`bootvol.model.ConnectionInfo`.
    :ivar port: port number; None for a socket in a folder.
    :ivar process: process of the server.
    :ivar ready: whether the server was seen to serve.
    :ivar owner: owner of the volume before the server's user became the owner; None if the owner
        did not change.
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

    :param directory: folder of exports, with the folder of sockets in it.
    """

    _log = Logger()

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def names(self) -> set[str]:
        """Return the names of exports with a record or any other file."""
        found = {path.stem for path in self._directory.iterdir() if path.suffix in _SUFFIXES}
        return found.union(path.name for path in sockets_in(self._directory).iterdir())

    def read(self, name: str) -> Record | None:
        """Return the record of an export, or None.

        :raises ExportFailed: if the record cannot be read.
        """
        path = self._directory / f"{name}.json"
        try:
            found = json.loads(path.read_bytes())
            return Record(**{**found, "process": Process(**found["process"])})
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError) as error:
            self._log.error(
                "the record of an export is damaged: end the export's qemu-nbd, and remove {path}",
                path=path,
            )
            raise ExportFailed(f"The record of export {name} is damaged.") from error

    def ports_of_others(self, name: str) -> set[int]:
        """Return the port numbers of all exports but one, as far as their records can be read."""
        ports = set()
        for each in self.names() - {name}:
            # A damaged record concerns its own volume only.  A living server holds its port itself.
            with suppress(ExportFailed):
                record = self.read(each)
                if record is not None and record.port is not None:
                    ports.add(record.port)
        return ports

    def write(self, name: str, record: Record) -> None:
        """Write the record of an export.  The record survives a loss of power."""
        content = json.dumps(attrs.asdict(record)).encode()
        files.replace(self._directory / f"{name}.json", content, draft=f"{name}.new")

    def remove(self, name: str) -> None:
        """Remove the record of an export, and its socket."""
        socket_of(self._directory, name).unlink(missing_ok=True)
        for suffix in _SUFFIXES:
            (self._directory / f"{name}{suffix}").unlink(missing_ok=True)
        files.sync(self._directory)
