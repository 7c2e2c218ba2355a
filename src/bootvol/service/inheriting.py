"""Takes over what another daemon had written of a volume when it lost its claim.

That daemon may be stopped, and go on writing later.  So nothing is written under its name: what it
had written is cloned or copied to the new claim's own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from bootvol.imaging.volumes import CopyingReader
from bootvol.interfaces import ICloningBackend, IVolumeReader
from bootvol.service.places import OnBackend


async def inherit(
    place: OnBackend, name: str, read: Callable[[IVolumeReader], Awaitable[None]]
) -> None:
    """Let a volume, made anew, hold what ``read`` reads of another one; durably.

    :param name: of the other one, which somebody may still write to, or delete.
    :param read: reads it, in order, and raises what it likes if that is not what it should be.
    :raises bootvol.errors.BackendFailed: the other one is not there any more, or the backend fails.
    """
    async with AsyncExitStack() as stack:
        if place.capabilities.clones:
            await place.backend.delete(place.name)
            await ICloningBackend(place.backend).clone(name, place.name, place.size)
            reader = await place.open_reader()
            stack.push_async_callback(reader.close)
            await read(reader)
            return
        former = await place.backend.open_reader(name)
        stack.push_async_callback(former.close)
        await place.renew()
        writer = await place.open_writer()
        stack.push_async_callback(writer.close)
        zeros = not place.capabilities.reads_zero_when_new
        await read(CopyingReader(former, writer, zeros=zeros))
        await writer.flush()
