"""Serves each attached volume by a `qemu-nbd` of its own, which outlives the daemon.

The record of an export is written before the export's server may run, and removed when nothing of
the export is left.  So a daemon that was killed at any moment finds the servers that it had
started.  A server that had not quite started has ended by itself.

The daemon trusts a server while the very process in the record lives: its socket listens until the
process ends.  The daemon does not query the server, since the server serves one client at a time: a
query would wait in the queue behind the guest, and the queue is short.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
import stat
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs
from twisted.internet.defer import Deferred

from bootvol import tables
from bootvol.devices import can_go_around_cache
from bootvol.errors import ExportFailed
from bootvol.exports import listeners
from bootvol.exports.processes import CREDENTIALS, FILE, NbdServer, start
from bootvol.exports.records import Record, Records
from bootvol.jail import LISTENER, Jail
from bootvol.jail.handing import Handed
from bootvol.model import ConnectionInfo
from bootvol.processes import Process, readable, shortage_in
from bootvol.reactors import IReactor
from bootvol.threads import Threads, outlast

#: Longest time in seconds until a server serves, and until a killed server is gone.
_PATIENCE: Final = 30.0
#: First bytes of a server (the NetworkBlockDevice project's doc/proto.md, "Newstyle negotiation").
_GREETING: Final = b"NBDMAGIC"
_IS: Final = {"file": stat.S_ISREG, "block": stat.S_ISBLK}
#: Options of every server.  Data that a guest has flushed is on the disk.  Discarded space is given
#: back.  No second client comes in beside the first: two would ruin a guest's file system.
_SERVING: Final = (
    "--format=raw",
    "--persistent",
    "--shared=1",
    "--discard=unmap",
    "--detect-zeroes=off",
)
#: Parts of qemu-nbd's complaints that mean nothing to others: the beginning, and the folder in
#: which qemu-nbd finds its credentials.
_PREFIXES: Final = re.compile(r"^qemu-nbd: |Failed to blk_new_open '[^']*': |/proc/self/fd/\d+/")
#: Requests that each server with Linux's own asynchronous I/O takes from the total of all processes
#: (QEMU's block/linux-aio.c); and the folder of the system's counts of requests.
_AIO_REQUESTS: Final = 1024
_AIO: Final = Path("/proc/sys/fs")


@attrs.frozen
class _Source:
    """A volume held open.

    :ivar lies: kind and path of the volume.
    :ivar identity: distinguishes the volume from every other file that exists at the same time.
    :ivar direct: whether reads and writes can go around the page cache.
    :ivar owner: id of the user who owns the volume.
    :ivar read_only: whether clients may only read the volume.
    """

    descriptor: int
    lies: str
    identity: str
    direct: bool
    owner: int
    read_only: bool

    def lock(self) -> None:
        """Lock the volume against a second server.  The server inherits the lock's descriptor.

        QEMU's own locks hold as well.  They keep guests away, but no other qemu-nbd.

        :raises ExportFailed: if the volume is served already.
        """
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ExportFailed("The volume is already exported, under another name.") from None

    def close(self) -> None:
        os.close(self.descriptor)


class Exports:
    """The exports of one daemon.  The caller must not run two calls for one name at once.

    The constructor blocks: call it before the reactor runs.

    :param options: settings of exports.  The folder must be this daemon's alone.
    :param jail: confines the servers.
    :param patience: see ``_PATIENCE``.
    :raises bootvol.errors.ConfigurationError: if the machine is not as the configuration says.
    """

    def __init__(
        self,
        options: tables.ExportsTable,
        threads: Threads,
        reactor: IReactor,
        jail: Jail,
        patience: float = _PATIENCE,
    ) -> None:
        self._place = listeners.make(options)
        self._records = Records(options.directory)
        self._threads = threads
        self._reactor = reactor
        self._jail = jail
        self._patience = patience

    async def open(self, name: str, source: ConnectionInfo) -> ConnectionInfo:
        """Serve a volume, unless the volume is served already.

        The guest of a served volume notices nothing.  A server that has died is started again, at
        the same address.  After a cancellation or a failure, :meth:`close` removes the remains.

        :param name: name of the volume, as in :mod:`bootvol.interfaces`.
        :param source: connection of kind ``file`` or ``block``.
        :returns: a connection of kind ``nbd``.
        :raises ExportFailed: if the volume cannot be served.
        """
        with _failures("The volume cannot be exported"):
            opened = await self._threads.obtain(_Source.close, _open, source)
            try:
                record = await self._threads.run(self._records.read, name)
                if record is None or not self._is_served(record, opened):
                    record = await self._serve(name, opened, record)
            finally:
                await self._threads.run(opened.close)
        return ConnectionInfo("nbd", record.address, source.read_only)

    async def close(self, name: str) -> None:
        """Cut off all clients of a volume, and serve the volume no more.  Idempotent.

        Afterwards, no process that was started here has the volume open.

        :raises ExportFailed: if somebody may still reach the volume.
        """
        with _failures(f"{name} is still exported"):
            record = await self._threads.run(self._records.read, name)
            if record is not None:
                await record.process.end(self._reactor, self._patience)
                if not record.ready:
                    await self._threads.run(self._take_back, record)
            await self._threads.run(self._records.remove, name)

    async def names(self) -> Collection[str]:
        """Return the names that were opened and not closed, also by a killed daemon.

        :raises ExportFailed: if the names cannot be read.
        """
        with _failures("The exports cannot be listed"):
            return await self._threads.run(self._records.names)

    def _is_served(self, record: Record, source: _Source) -> bool:
        if (record.lies, record.identity) != (source.lies, source.identity):
            return False
        return record.ready and listeners.is_there(record.address) and record.process.runs()

    async def _serve(self, name: str, source: _Source, before: Record | None) -> Record:
        """Start a server.

        :param before: former record of the export, if any.  The export keeps its address.
        """
        try:
            if before is not None:
                await before.process.end(self._reactor, self._patience)
            source.lock()
            port = None if before is None else before.port
            listening = await self._threads.obtain(
                listeners.Listening.close, self._listen, name, port
            )
            try:
                owner = self._owner(source, before)
                return await self._start(name, source, listening, owner)
            finally:
                listening.close()
        except BaseException:
            if before is None:
                await outlast(Deferred.fromCoroutine(self.close(name)))
            raise

    async def _start(
        self, name: str, source: _Source, listening: listeners.Listening, owner: int
    ) -> Record:
        command = ["qemu-nbd", *_SERVING, f"--export-name={name}", *_cache(source)]
        command += ["--read-only"] if source.read_only else []
        command += [*self._place.options, f"/proc/self/fd/{FILE}"]
        handed = await self._threads.obtain(
            Handed.close, lambda: Handed(self._place.files(), CREDENTIALS)
        )
        files = {LISTENER: listening.listener.fileno(), FILE: source.descriptor}
        try:
            server = start(
                self._reactor, name, command, {**files, **handed.descriptors}, self._jail
            )
            process = await _process(server)
            address, port = listening.address, listening.port
            record = Record(source.lies, source.identity, address, port, process, owner=owner)
            await self._see_it_serve(name, server, listening, record)
        finally:
            await self._threads.run(handed.close)
        return attrs.evolve(record, ready=True)

    async def _see_it_serve(
        self, name: str, server: NbdServer, listening: listeners.Listening, record: Record
    ) -> None:
        process = record.process
        try:
            await self._threads.run(self._records.write, name, record)
            server.let_go_on()
            if not await self._greets(listening):
                # A server that ended by itself has said why before its socket went.
                await process.end(self._reactor, self._patience)
                raise await _refusal(server)
            await self._threads.run(self._take_back, record)
            ready = attrs.evolve(record, ready=True)
            await self._threads.run(self._records.write, name, ready)
            server.leave()
        except BaseException:
            await outlast(Deferred.fromCoroutine(process.end(self._reactor, self._patience)))
            await outlast(Deferred.fromCoroutine(self._threads.run(self._take_back, record)))
            raise

    def _owner(self, source: _Source, before: Record | None) -> int:
        """Return the owner of a volume, even while the volume is lent to a former server."""
        if before is None or before.owner is None:
            return source.owner
        is_lent = source.owner == self._jail.user(before.process.pid)
        return before.owner if is_lent else source.owner

    def _take_back(self, record: Record) -> None:
        """Give a volume back to its owner.  The server has the volume open, and needs no more."""
        user = self._jail.user(record.process.pid)
        if record.owner in (None, user):
            return
        kind, _, address = record.lies.partition(":")
        try:
            source = _open(ConnectionInfo(kind, address))
        except (OSError, ExportFailed):
            # The volume does not exist any more.
            return
        try:
            if (source.identity, source.owner) == (record.identity, user):
                os.fchown(source.descriptor, record.owner, -1)
        finally:
            source.close()

    async def _greets(self, listening: listeners.Listening) -> bool:
        """Wait until a server serves.  Return whether the server does."""
        # From now on only the server has the listening socket.  The socket goes when the server
        # goes, and the probe's connection breaks.
        listening.listener.close()
        if not await readable(self._reactor, listening.probe.fileno(), self._patience):
            raise ExportFailed("The volume cannot be exported: qemu-nbd does not start.")
        try:
            return listening.probe.recv(len(_GREETING), socket.MSG_DONTWAIT) == _GREETING
        except ConnectionError:
            return False

    def _listen(self, name: str, port: int | None) -> listeners.Listening:
        return self._place.listen(name, port, self._records.ports_of_others(name))


def _open(source: ConnectionInfo) -> _Source:
    """Open a volume, if the file at the address is of the stated kind."""
    is_right = _IS.get(source.kind)
    if is_right is None:
        raise ExportFailed(f"A volume of kind {source.kind} cannot be exported.")
    # Not for writing: the server opens the very same file again to write.
    descriptor = os.open(source.address, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    found = os.fstat(descriptor)
    if not is_right(found.st_mode):
        os.close(descriptor)
        raise ExportFailed("The volume's path leads to something else.")
    return _Source(
        descriptor,
        f"{source.kind}:{source.address}",
        f"{found.st_dev}:{found.st_ino}:{found.st_rdev}",
        can_go_around_cache(descriptor),
        found.st_uid,
        source.read_only,
    )


def _cache(source: _Source) -> Sequence[str]:
    """Return the options by which a server opens its volume.

    The options avoid io_uring, which may hold a file for a while after the end of the process.
    """
    if not source.direct:
        return ("--cache=writeback", "--aio=threads")
    used, limit = (int((_AIO / each).read_text()) for each in ("aio-nr", "aio-max-nr"))
    native = used + _AIO_REQUESTS <= limit
    return ("--cache=none", f"--aio={'native' if native else 'threads'}")


async def _process(server: NbdServer) -> Process:
    """Return the identity of a server's process, different from every other process.

    :raises ExportFailed: if the process has ended.
    :raises OSError: if the process cannot be looked at.  The process has ended then, too.
    """
    try:
        process = None if server.pid is None else Process.of(server.pid)
    except OSError:
        # The process holds the lock on the volume, so no other server could serve the volume.
        server.kill()
        await outlast(server.ended.wait())
        raise
    if process is None:
        raise await _refusal(server)
    return process


async def _refusal(server: NbdServer) -> ExportFailed:
    """Return the error for a server that could not begin, in the server's own words."""
    await server.ended.wait()
    said = server.complaint
    error = ExportFailed(f"The volume cannot be exported: {_PREFIXES.sub('', said).rstrip('.')}.")
    error.__cause__ = shortage_in(said)
    return error


@contextmanager
def _failures(what: str) -> Iterator[None]:
    """Turn the system's errors into :class:`~bootvol.errors.ExportFailed`, which callers know."""
    try:
        yield
    except OSError as error:
        raise ExportFailed(f"{what}: {error.strerror or error}.") from error
