"""Reads the disk in a container (qcow2, vmdk, vhd, vhdx, vdi) with QEMU's tools, in a sandbox.

The tools are told the format and never probe the image again.  Each image is examined before its
disk is read.  Some faults that `qemu-img` would silently accept are refused: a truncated qcow2, or
another file in the place of a part of the disk.
"""

from __future__ import annotations

import os
import re
import socket
import tempfile
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Final, TypeVar

import orjson
from twisted.internet.defer import Deferred

from bootvol.devices import can_go_around_cache
from bootvol.errors import (
    BackendFailed,
    ContainerTruncated,
    FormatMismatch,
    ImageBomb,
    ImageCorrupt,
    ImageNeedsRepair,
    ImageRefersElsewhere,
    ImageTooLarge,
    SpoolSilent,
    UnsupportedFormat,
)
from bootvol.imaging.complaints import LOG, Complaints, broken
from bootvol.imaging.lines import MOST, Lines
from bootvol.imaging.nbd import NbdConnection, NbdFailed, NbdSilent, NbdStream
from bootvol.imaging.sandbox import Program, Sandbox
from bootvol.imaging.truncation import check_end, check_tables, stated_size
from bootvol.jsons import JsonObject
from bootvol.model import GIB, Extent
from bootvol.threads import Threads

#: QEMU's names of formats, if other than bootvol's.
_DRIVERS: Final = {"vhd": "vpc"}
#: The descriptor of the image in the sandbox.
_IMAGE: Final = 4
_PATH: Final = f"/proc/self/fd/{_IMAGE}"
#: CPU time for reading, in seconds: a fixed part, and a part for each GiB of the volume.
_SECONDS, _SECONDS_OF_A_GIB = 60, 30
#: Seconds to wait for an answer, before a reader of an image is given up; and the number of further
#: readers for one part of the image, if the spool and not the image kept the first one busy.
_SILENCE: Final = 60
_FURTHER: Final = 5
#: Seconds in which a failed reader has to end by itself.
_GRACE: Final = 10.0
#: Exit codes of `qemu-img check`: the check failed, or found errors.
_NOT_RIGHT: Final = frozenset({1, 2})
_DAMAGED: Final = 2

#: A line of `qemu-img map` about a data part of the disk: length, and offset in the image.  A part
#: without data may have an offset as well, which may lie outside the image: for example, if the
#: last subclusters of a cluster were never written (qcow2 specification, "Extended L2 Entries").
_EXTENT: Final = re.compile(rb'"length": (\d{1,19}),.*"data": true,.*"offset": (\d{1,19})\b')

#: The parent's content id in a vmdk image without a parent (VMware, Virtual Disk Format 1.1, "The
#: Header").
_NO_PARENT: Final = 0xFFFF_FFFF


T = TypeVar("T")
_Start = Callable[[], Coroutine[Deferred[object], object, tuple[Program, NbdConnection]]]


class Containers:
    """The opener of containers.

    :param sandbox: the sandbox of the containers' readers.
    """

    def __init__(self, sandbox: Sandbox, threads: Threads) -> None:
        self._sandbox = sandbox
        self._threads = threads

    async def open(
        self, container: str, descriptor: int, volume_size: int, stack: AsyncExitStack
    ) -> NbdStream:
        """Return the disk in a container as a stream.

        :param container: format of the container: :data:`bootvol.imaging.inspect.CONTAINERS`.
        :param descriptor: a descriptor of the whole container, open for reading.  The caller still
            owns the descriptor.
        :param volume_size: the most bytes of the disk.
        :param stack: ends the started program when the caller closes the stack, after the last
            read.
        :raises ImportFailed: if the container is not valid, or cannot be read here.
        """
        driver = _DRIVERS.get(container, container)
        seconds = _SECONDS + _SECONDS_OF_A_GIB * (volume_size // GIB)
        await self._threads.run(check_end, container, descriptor)
        await self._examine(driver, descriptor, volume_size, seconds)

        def start() -> Coroutine[Deferred[object], object, tuple[Program, NbdConnection]]:
            return self._start(driver, descriptor, seconds)

        stream = _Served(*await start(), start, self._threads)
        stack.push_async_callback(stream.close)
        await stream.begin()
        await self._threads.run(check_tables, container, descriptor)
        stated = await self._threads.run(stated_size, container, descriptor)
        if stated not in (None, stream.size):
            # If the size is no whole number of sectors, QEMU leaves out the rest.
            raise ImageCorrupt(
                f"The image's disk has {stated} bytes, but only {stream.size} can be read."
            )
        return stream

    async def _examine(self, driver: str, descriptor: int, volume_size: int, seconds: int) -> None:
        files = {_IMAGE: descriptor}
        info = await self._sandbox.run(
            ["qemu-img", "info", "--output=json", *_opened(driver)], seconds, files
        )
        if LOG in info.err:
            raise ImageNeedsRepair(
                f"The {driver} image was not closed: its log holds a part of the disk."
            )
        if info.code:
            raise broken(info.err, info.code)
        try:
            said = orjson.loads(info.out)
            _check_info(said, volume_size)
        except orjson.JSONDecodeError:
            raise ImageCorrupt(
                "The image has more snapshots or bitmaps than bootvol reads."
            ) from None
        except (AttributeError, KeyError, TypeError):
            # An image that has taken over the program may write anything.
            raise ImageCorrupt("QEMU's description of the image makes no sense.") from None
        complaints = Complaints(bool(said.get("dirty-flag")))
        check = await self._sandbox.run(
            # The output may be long: one line for each cluster.
            ["sh", "-c", 'exec "$@" 2>&1', "sh", "qemu-img", "check", *_opened(driver)],
            seconds,
            files,
            Lines(self._threads, complaints.take, "QEMU finds too many faults in the image.").read,
        )
        if check.code in _NOT_RIGHT and not (check.code == _DAMAGED and complaints.only_refcounts):
            raise broken(complaints.said, check.code)
        ends = _Ends()
        mapped = await self._sandbox.run(
            ["qemu-img", "map", "--output=json", *_opened(driver)],
            seconds,
            files,
            Lines(
                self._threads, ends.take, f"The image's disk consists of more than {MOST} pieces."
            ).read,
        )
        size = os.fstat(descriptor).st_size
        if ends.last > size:
            raise ContainerTruncated(
                f"The image has {size} bytes, but refers to parts beyond its end."
            )
        if mapped.code:
            raise broken(mapped.err, mapped.code)

    async def _start(
        self, driver: str, descriptor: int, seconds: int
    ) -> tuple[Program, NbdConnection]:
        """Start a server of the disk on a socket, and connect to the server."""
        listener, client = await self._threads.run(_sockets)
        try:
            program = self._sandbox.start(
                [
                    "qemu-nbd",
                    "--read-only",
                    # The image was written around the page cache, so read around it if possible.
                    f"--cache={'none' if can_go_around_cache(descriptor) else 'writeback'}",
                    *_opened(driver),
                ],
                seconds,
                {_IMAGE: descriptor},
                listener.fileno(),
            )
        except BaseException:
            client.close()
            raise
        finally:
            listener.close()
        return program, NbdConnection(client, _SILENCE)


class _Served(NbdStream):
    """A stream of a disk whose content may crash the server.

    The image lies in the spool.  If the spool hangs, or the daemon was stopped meanwhile, the
    server seems silent, although the image is right.  Another server then continues.

    :param start: starts a server, and returns the server and a connection to it.
    """

    def __init__(
        self, program: Program, connection: NbdConnection, start: _Start, threads: Threads
    ) -> None:
        super().__init__(connection, threads)
        self._program = program
        self._start = start
        self._is_ready = False

    async def begin(self) -> None:
        """Wait until the server offers the disk."""
        await self._guarded(self._get_ready)

    async def read_into(self, target: memoryview) -> int:
        """See :meth:`bootvol.interfaces.IImageStream.read_into`."""
        return await self._guarded(lambda: NbdStream.read_into(self, target))

    async def extents(self, offset: int, length: int) -> Sequence[Extent]:
        """See :meth:`bootvol.interfaces.ISparse.extents`."""
        return await self._guarded(lambda: NbdStream.extents(self, offset, length))

    async def close(self) -> None:
        """End the connection and the server."""
        try:
            await super().close()
        finally:
            self._program.kill()
            await self._program.end()

    async def _get_ready(self) -> None:
        if not self._is_ready:
            await self._threads.run(self._connection.negotiate)
            self.size = self._connection.size
            self._is_ready = True

    async def _guarded(self, ask: Callable[[], Awaitable[T]]) -> T:
        for further in range(_FURTHER + 1):
            if further:
                await self.close()
                self._is_ready = False
                self._program, self._connection = await self._start()
            spent = self._program.cpu_seconds
            try:
                await self._get_ready()
                return await ask()
            except NbdSilent as error:
                if self._program.cpu_seconds - spent > _SILENCE / 2:
                    raise ImageBomb("Reading the image takes longer than the limit.") from error
            except NbdFailed as error:
                # A server that ends gives the reason.  A server that breaks the protocol and goes
                # on gives none.
                ended = await self._program.end_within(_GRACE)
                if ended is None:
                    raise ImageCorrupt(f"The image cannot be read: {error}.") from error
                ended.check_spent()
                raise broken(ended.err, ended.code) from error
        raise SpoolSilent


class _Ends:
    """A parser for the output of `qemu-img map`.

    :ivar last: end of the furthest data part in the image, in bytes.
    """

    def __init__(self) -> None:
        self.last = 0

    def take(self, line: bytes) -> None:
        """Process a line, which describes an extent."""
        found = _EXTENT.search(line)
        if found is not None:
            self.last = max(self.last, int(found[1]) + int(found[2]))


def _check_info(info: JsonObject, volume_size: int) -> None:
    """Check the output of `qemu-img info`.  An incomplete image was refused before."""
    data = info.get("format-specific", {}).get("data", {})
    extents = data.get("extents", [])
    elsewhere = [each for each in extents if each.get("filename") != _PATH]
    if elsewhere or len(extents) > 1:
        raise ImageRefersElsewhere("Parts of the image's disk are in other files.")
    if info.get("backing-filename") or data.get("data-file"):
        raise ImageRefersElsewhere("The image has a backing or data file.")
    if data.get("parent-cid", _NO_PARENT) != _NO_PARENT:
        # QEMU finds the parent by its name only, and reads zeros if no parent is found.
        raise ImageRefersElsewhere("The vmdk image is only the difference to another one.")
    if data.get("corrupt"):
        # qcow2 specification, incompatible feature bit 1: any part of the image may be wrong.
        raise ImageNeedsRepair(
            "The image is marked as corrupt: QEMU found damage when it wrote the image."
        )
    if info.get("encrypted"):
        raise UnsupportedFormat("The image is encrypted.")
    if info["virtual-size"] > volume_size:
        raise too_large(info["virtual-size"], volume_size)


def too_large(disk_size: int, volume_size: int) -> ImageTooLarge:
    """Return the error for a disk larger than the volume; sizes in bytes."""
    return ImageTooLarge(f"The image's disk has {disk_size} bytes; the volume has {volume_size}.")


def other_format(container: str) -> FormatMismatch:
    """Return the error for an image that was fetched twice, and was a container only once."""
    return FormatMismatch(
        f"The image was {container} at first, and had another format when it was fetched again."
    )


def _opened(driver: str) -> list[str]:
    """Return the arguments with the image and its format, for QEMU's tools."""
    if driver != "vpc":
        return [f"--format={driver}", _PATH]
    # For unknown creator programs, QEMU would take the size from the geometry, which is smaller.
    return [
        "--image-opts",
        f"driver=vpc,force_size_calc=current_size,file.driver=file,file.filename={_PATH}",
    ]


def _sockets() -> tuple[socket.socket, socket.socket]:
    """Return a listening socket that no other process can reach, and a connection to the socket.

    The connection exists before the server: if the daemon dies, the server sees the end at once.

    :raises BackendFailed: if the system allows no such socket.
    """
    try:
        with ExitStack() as stack:
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            with tempfile.TemporaryDirectory(prefix="bootvol") as folder:
                path = str(Path(folder) / "disk")
                listener.bind(path)
                listener.listen(1)
                client.connect(path)
            stack.pop_all()
    except OSError as error:
        raise BackendFailed(f"No socket can be made to read the image: {error}.") from error
    return listener, client
