"""Copy an existing volume to a new one: a clone if the backend clones, else a byte copy."""

from __future__ import annotations

from contextlib import AsyncExitStack

import attrs

from bootvol.imaging.target import VolumeTarget
from bootvol.imaging.volumes import VolumeStream
from bootvol.interfaces import IBlockBackend, ICloningBackend, IImageStream
from bootvol.model import Digest, Image, Phase
from bootvol.worker.copier import Copier
from bootvol.worker.lane_place import YieldingStream
from bootvol.worker.progress import Progress


@attrs.frozen
class Origin:
    """An existing volume to copy from.

    :ivar size: the bytes to copy; a new volume reads as zeros beyond them.
    :ivar digest: the expected digest of these bytes; None if the copy need not be verified.
    """

    backend: IBlockBackend
    name: str
    size: int
    digest: Digest | None = None


async def clone_or_copy(
    copier: Copier, origin: Origin, target: VolumeTarget, progress: Progress | None = None
) -> None:
    """Make a new volume that holds the same bytes as another one.

    After a failure or a cancellation, deleting the new volume removes all that is left.

    :param progress: records how far the copy has come.
    :raises bootvol.errors.NoSpace: if the backend has no room.
    :raises bootvol.errors.BackendFailed: if a backend fails.
    :raises bootvol.errors.DigestMismatch: if a copy's bytes do not match ``origin.digest``.
    """
    backend = origin.backend
    if target.backend is backend and backend.capabilities.clones:
        cloning = ICloningBackend(backend)
        await cloning.clone(origin.name, target.name, target.size, origin.size)
        if progress is not None:
            progress.arrive(origin.size)
        return
    disk = Image("", "", origin.name, "raw", digest=origin.digest)
    copy = copier.copy(disk, target, inspected=False)
    if progress is not None:
        progress.begin(copy, Phase.CLONING, copier.clock.seconds())
    async with AsyncExitStack() as stack:
        reader = await backend.open_reader(origin.name)
        stack.push_async_callback(reader.close)
        await target.renew()
        writer = await target.open_writer()
        stack.push_async_callback(writer.close)
        stream: IImageStream = VolumeStream(reader, origin.size, backend.capabilities.block_size)
        if progress is not None:
            stream = YieldingStream(stream, progress.lane_place, copier.clock)
        await copy.run(stream, writer, plain=True)
