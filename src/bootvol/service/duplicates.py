"""Lets a new volume hold what another one does: a clone where the backend clones, else a copy."""

from __future__ import annotations

from contextlib import AsyncExitStack

from bootvol.imaging.volumes import VolumeStream
from bootvol.interfaces import IBlockBackend, ICloningBackend
from bootvol.model import Image
from bootvol.service.places import Copier, OnBackend


async def duplicate(
    copier: Copier,
    backend: IBlockBackend,
    source: str,
    size: int,
    target: IBlockBackend,
    place: OnBackend,
) -> None:
    """Fill a volume that there is not yet from another one.

    Cancelled or failed, it leaves what deleting the new volume takes away.

    :param backend: of the other one, ``source``.
    :param size: of that in bytes; what is beyond reads as zeros.
    :param target: the backend of ``place``.
    :raises bootvol.errors.NoSpace: there is no room.
    :raises bootvol.errors.BackendFailed: one of the two failed.
    """
    if target is backend and backend.capabilities.clones:
        await ICloningBackend(backend).clone(source, place.name, place.size)
        return
    copy = copier.copy(Image("", "", source, "raw"), place)
    async with AsyncExitStack() as stack:
        reader = await backend.open_reader(source)
        stack.push_async_callback(reader.close)
        await place.renew()
        writer = await place.open_writer()
        stack.push_async_callback(writer.close)
        stream = VolumeStream(reader, size, backend.capabilities.block_size)
        await copy.run(stream, writer, plain=True)
