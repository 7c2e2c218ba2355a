"""Reads the disk in a container (qcow2, vmdk, vhd, vhdx, vdi): qemu's tools do, in a sandbox.

The format is stated to them and never probed again, and the image is examined before its disk is
read: what `qemu-img` would take without a word (a truncated qcow2, another file in the place of a
part of the disk) is refused.
"""

from __future__ import annotations

import json
import os
import re
import socket
import struct
import tempfile
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any, Final, TypeVar

from bootvol.devices import can_go_around_cache, failures
from bootvol.errors import (
    BackendFailed,
    ContainerTruncated,
    ImageBomb,
    ImageCorrupt,
    ImageNeedsRepair,
    ImageRefersElsewhere,
    ImageTooLarge,
    UnsupportedFormat,
)
from bootvol.imaging.complaints import LOG, Complaints, broken
from bootvol.imaging.lines import MOST, Lines
from bootvol.imaging.nbd import NbdConnection, NbdFailed, NbdSilent, NbdStream
from bootvol.imaging.sandbox import Program, Sandbox
from bootvol.model import GIB, Extent
from bootvol.threads import Threads

#: What qemu calls the formats that it calls otherwise.
_DRIVERS: Final = {"vhd": "vpc"}
#: The descriptor that the image is in the sandbox.
_IMAGE: Final = 4
_PATH: Final = f"/proc/self/fd/{_IMAGE}"
#: CPU time that reading may take: in any case, and for each GiB of the volume; in seconds.
_SECONDS, _SECONDS_OF_A_GIB = 60, 30
#: Seconds that an answer may take, after which a reader of an image is given up.
_SILENCE: Final = 60
#: Seconds that it has to end by itself when it has failed.
_GRACE: Final = 10.0
#: How `qemu-img check` ends where it could not look, and where it found errors.
_NOT_RIGHT: Final = frozenset({1, 2})
_DAMAGED: Final = 2

#: What `qemu-img map` writes of a part of the disk that is data: its bytes, and where in the image
#: they lie. A part that is no data may have a place as well, which need not be in the image: the
#: last subclusters of a cluster were never written, say (qcow2 specification, "Extended L2
#: Entries").
_EXTENT: Final = re.compile(rb'"length": (\d+),.*"data": true,.*"offset": (\d+)')

#: The parent's content id in a vmdk image that has none (VMware, Virtual Disk Format 1.1, "The
#: Header").
_NO_PARENT: Final = 0xFFFF_FFFF
#: What a vhd image ends with (Virtual Hard Disk Image Format Specification, "Hard Disk Footer").
_VHD_FOOTER: Final = b"conectix"
_VHD_WHOLE, _VHD_DIFFERENCE = (2, 3), 4
#: Where those formats state their disk's size that do so in bytes, as :meth:`io.IOBase.seek` takes
#: it: qcow2 ("size" in its header), vhd ("Current Size" in its footer).
_SIZES: Final = {"qcow2": (24, os.SEEK_SET), "vhd": (48 - 512, os.SEEK_END)}
#: In the header of a qcow2 image: the logarithm of a cluster's size; how many entries the L1 table
#: has, and where it lies.  In an entry: where an L2 table lies, which fills a cluster (qcow2
#: specification, "Header" and "Cluster mapping").
_QCOW2_CLUSTER: Final = struct.Struct(">20xI")
_QCOW2_TABLE: Final = struct.Struct(">36xIQ")
_QCOW2_ENTRY: Final = struct.Struct(">Q")
_QCOW2_PLACE: Final = 0x00FF_FFFF_FFFF_FE00
#: Every part of a vhdx image begins and ends on one of these (MS-VHDX, section 2.1), in bytes.
_VHDX_UNIT: Final = 1024 * 1024


T = TypeVar("T")


class Containers:
    """Opens containers.

    :param sandbox: where their readers run.
    """

    def __init__(self, sandbox: Sandbox, threads: Threads) -> None:
        self._sandbox = sandbox
        self._threads = threads

    async def open(
        self, container: str, descriptor: int, volume_size: int, stack: AsyncExitStack
    ) -> NbdStream:
        """Return the disk in a container as a stream.

        :param container: its format, one of :data:`bootvol.imaging.inspect.CONTAINERS`.
        :param descriptor: the whole container, open for reading; stays the caller's.
        :param volume_size: the most that the disk may have, in bytes.
        :param stack: ends what was started, when the disk has been read or is not wanted any more.
        :raises ImportFailed: the container is not what it should be, or cannot be read here.
        """
        driver = _DRIVERS.get(container, container)
        seconds = _SECONDS + _SECONDS_OF_A_GIB * (volume_size // GIB)
        await self._threads.run(_check_end, container, descriptor)
        await self._examine(driver, descriptor, volume_size, seconds)
        stream = await self._serve(driver, descriptor, seconds, stack)
        await self._threads.run(_check_tables, container, descriptor)
        stated = await self._threads.run(_stated_size, container, descriptor)
        if stated not in (None, stream.size):
            # Of a size that is no whole number of sectors, qemu leaves out the rest.
            raise ImageCorrupt(
                f"The image's disk has {stated} bytes, of which {stream.size} can be read."
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
            said = json.loads(info.out)
        except ValueError:
            raise ImageCorrupt("The image has more snapshots or bitmaps than are read.") from None
        _check_info(said, volume_size)
        complaints = Complaints(bool(said.get("dirty-flag")))
        check = await self._sandbox.run(
            # All that it has to say may be much: a line for each cluster.
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
            Lines(self._threads, ends.take, f"The disk is in more than {MOST} pieces.").read,
        )
        size = os.fstat(descriptor).st_size
        if ends.last > size:
            raise ContainerTruncated(f"The image has {size} bytes, but parts of it lie beyond.")
        if mapped.code:
            raise broken(mapped.err, mapped.code)

    async def _serve(
        self, driver: str, descriptor: int, seconds: int, stack: AsyncExitStack
    ) -> NbdStream:
        """Have the disk served on a socket, and connect to it."""
        listener, client = await self._threads.run(_sockets)
        try:
            program = self._sandbox.start(
                [
                    "qemu-nbd",
                    "--read-only",
                    # What was written around the page cache is read so, too, where that can be.
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
        stack.push_async_callback(_end, program)
        connection = NbdConnection(client, _SILENCE)
        stream = _Served(connection, self._threads, program)
        stack.push_async_callback(stream.close)
        await stream.negotiate()
        return stream


class _Served(NbdStream):
    """A disk whose server may die of it."""

    def __init__(self, connection: NbdConnection, threads: Threads, program: Program) -> None:
        super().__init__(connection, threads)
        self._program = program

    async def negotiate(self) -> None:
        """Wait until the disk is there."""
        await self._guarded(self._threads.run(self._connection.negotiate))
        self.size = self._connection.size

    async def read_into(self, target: memoryview) -> int:
        """See :meth:`bootvol.interfaces.IImageStream.read_into`."""
        return await self._guarded(super().read_into(target))

    async def extents(self, offset: int, length: int) -> Sequence[Extent]:
        """See :meth:`bootvol.interfaces.ISparse.extents`."""
        return await self._guarded(super().extents(offset, length))

    async def _guarded(self, call: Coroutine[Any, Any, T]) -> T:
        try:
            return await call
        except NbdFailed as error:
            if isinstance(error, NbdSilent):
                raise ImageBomb("Reading the image takes more time than it may.") from error
            # It says why when it ends; what goes on without keeping to the protocol says nothing.
            ended = await self._program.end_within(_GRACE)
            if ended is None:
                raise ImageCorrupt(f"The image cannot be read: {error}.") from error
            ended.check_spent()
            raise broken(ended.err, ended.code) from error


class _Ends:
    """Reads what `qemu-img map` writes.

    :ivar last: where the part of the image that lies furthest ends, in bytes.
    """

    def __init__(self) -> None:
        self.last = 0

    def take(self, line: bytes) -> None:
        """Take in a line: an extent."""
        found = _EXTENT.search(line)
        if found is not None:
            self.last = max(self.last, int(found[1]) + int(found[2]))


async def _end(program: Program) -> None:
    program.kill()
    await program.end()


def _check_info(info: dict[str, Any], volume_size: int) -> None:
    """See what `qemu-img info` says of an image: it was refused before, should it not be whole."""
    data = info.get("format-specific", {}).get("data", {})
    extents = data.get("extents", [])
    elsewhere = [each for each in extents if each.get("filename") != _PATH]
    if elsewhere or len(extents) > 1:
        raise ImageRefersElsewhere("Parts of the image's disk lie in other files.")
    if info.get("backing-filename") or data.get("data-file"):
        raise ImageRefersElsewhere("The image has a backing or data file.")
    if data.get("parent-cid", _NO_PARENT) != _NO_PARENT:
        # QEMU looks for the parent by its name only, and reads zeros where there is none.
        raise ImageRefersElsewhere("The vmdk image is only the difference to another one.")
    if data.get("corrupt"):
        # qcow2 specification, incompatible feature bit 1: any part of it may be wrong.
        raise ImageNeedsRepair("The image is marked as corrupt: QEMU found it so when writing it.")
    if info.get("encrypted"):
        raise UnsupportedFormat("The image is encrypted.")
    if info["virtual-size"] > volume_size:
        raise too_large(info["virtual-size"], volume_size)


def too_large(disk_size: int, volume_size: int) -> ImageTooLarge:
    """Return the error for a disk that does not fit; sizes in bytes."""
    return ImageTooLarge(f"The image's disk has {disk_size} bytes; the volume has {volume_size}.")


def _opened(driver: str) -> list[str]:
    """Return the arguments by which qemu's tools open the image, and as what."""
    if driver != "vpc":
        return [f"--format={driver}", _PATH]
    # Of makers that it does not know it would take a geometry for the size, which is smaller.
    return [
        "--image-opts",
        f"driver=vpc,force_size_calc=current_size,file.driver=file,file.filename={_PATH}",
    ]


def _check_end(container: str, descriptor: int) -> None:
    """See whether the image's end is there, where `qemu-img` does not miss it."""
    with failures("Reading the image failed"):
        size = os.fstat(descriptor).st_size
        tail = os.pread(descriptor, 512, max(0, size - 512))
    if container == "vhd":
        if not tail.startswith(_VHD_FOOTER):
            raise ContainerTruncated("The vhd image lacks its last bytes, the footer.")
        _check_kind(int.from_bytes(tail[60:64], "big"))
    if container == "vhdx" and size % _VHDX_UNIT:
        raise ContainerTruncated("The vhdx image does not end where one can end.")


def _check_tables(container: str, descriptor: int) -> None:
    """See whether the tables of a qcow2 image lie in it.

    QEMU reads what is missing of a table as zeros, and the disk then as zeros; `qemu-img check`
    misses less than a cluster.

    :param descriptor: an image whose header `qemu-img` takes, so that the L1 table is bounded.
    :raises ContainerTruncated: a table goes on beyond the image's end.
    """
    if container != "qcow2":
        return
    with failures("Reading the image failed"):
        size = os.fstat(descriptor).st_size
        header = os.pread(descriptor, _QCOW2_TABLE.size, 0)
        (bits,) = _QCOW2_CLUSTER.unpack_from(header)
        count, start = _QCOW2_TABLE.unpack(header)
        length = count * _QCOW2_ENTRY.size
        table = os.pread(descriptor, length, start)
    if len(table) < length:
        raise ContainerTruncated("The L1 table of the qcow2 image goes on beyond the image's end.")
    furthest = max((each & _QCOW2_PLACE for (each,) in _QCOW2_ENTRY.iter_unpack(table)), default=0)
    if furthest and furthest + (1 << bits) > size:
        raise ContainerTruncated("An L2 table of the qcow2 image goes on beyond the image's end.")


def _stated_size(container: str, descriptor: int) -> int | None:
    """Return the bytes that an image says its disk has; None if qemu takes no others."""
    if container not in _SIZES:
        return None
    place, whence = _SIZES[container]
    with failures("Reading the image failed"):
        end = os.fstat(descriptor).st_size if whence == os.SEEK_END else 0
        return int.from_bytes(os.pread(descriptor, 8, end + place), "big")


def _check_kind(kind: int) -> None:
    """See whether a vhd is whole, by the disk type in its footer: qemu does not look."""
    if kind == _VHD_DIFFERENCE:
        raise ImageRefersElsewhere("The vhd image is only the difference to another one.")
    if kind not in _VHD_WHOLE:
        raise ImageCorrupt(f"The vhd image is of an unknown kind, {kind}.")


def _sockets() -> tuple[socket.socket, socket.socket]:
    """Return a listening socket that nobody else can reach, and a connection to it.

    That is there before the server is: should the daemon die, the server meets its end at once.

    :raises BackendFailed: the system does not let us.
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
