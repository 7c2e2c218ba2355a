"""Lets a new volume hold what another one does: a clone where the backend clones, else a copy."""

from __future__ import annotations

from contextlib import AsyncExitStack

import attrs

from bootvol.imaging.volumes import VolumeStream
from bootvol.interfaces import IBlockBackend, ICloningBackend, IImageStream
from bootvol.model import Digest, Image, Phase
from bootvol.service.places import Copier, OnBackend
from bootvol.service.progress import Progress
from bootvol.service.turns import InTurn


@attrs.frozen
class Origin:
    """A volume that there is.

    :ivar size: what counts of it, in bytes; what a new volume has beyond reads as zeros.
    :ivar digest: of that, if it is to be held against one.
    """

    backend: IBlockBackend
    name: str
    size: int
    digest: Digest | None = None


async def duplicate(
    copier: Copier, origin: Origin, place: OnBackend, progress: Progress | None = None
) -> None:
    """Let a volume that there is not yet hold what another one does.

    Cancelled or failed, it leaves what deleting the new volume takes away.

    :param progress: is told how far it has come.
    :raises bootvol.errors.NoSpace: there is no room.
    :raises bootvol.errors.BackendFailed: a backend failed.
    :raises bootvol.errors.DigestMismatch: a copy was not of what there should be.
    """
    backend = origin.backend
    if place.backend is backend and backend.capabilities.clones:
        await ICloningBackend(backend).clone(origin.name, place.name, place.size)
        if progress is not None:
            progress.arrive(origin.size)
        return
    disk = Image("", "", origin.name, "raw", digest=origin.digest)
    copy = copier.copy(disk, place, inspected=False)
    if progress is not None:
        progress.begin(copy, Phase.CLONING, copier.clock.seconds())
    async with AsyncExitStack() as stack:
        reader = await backend.open_reader(origin.name)
        stack.push_async_callback(reader.close)
        await place.renew()
        writer = await place.open_writer()
        stack.push_async_callback(writer.close)
        stream: IImageStream = VolumeStream(reader, origin.size, backend.capabilities.block_size)
        if progress is not None:
            stream = InTurn(stream, progress.turn, copier.clock)
        await copy.run(stream, writer, plain=True)
