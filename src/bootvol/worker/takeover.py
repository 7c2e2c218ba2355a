"""Take over the bytes of a volume that another daemon had written before it lost its claim.

The other daemon may only be stopped, and may continue to write later. So a claim never writes under
the name of an earlier claim. The earlier claim's bytes are cloned or copied to the new claim's own
name.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from bootvol.errors import BackendFailed, BackendInterrupted, WrongStore
from bootvol.imaging.pipeline import CopyPipeline, PrefixChanged
from bootvol.imaging.target import Target, VolumeTarget
from bootvol.imaging.volumes import CopyingReader
from bootvol.interfaces import IVolumeReader
from bootvol.model import Checkpoint
from bootvol.shortage import short_of


async def inherit(
    target: VolumeTarget, name: str, read: Callable[[IVolumeReader], Awaitable[None]]
) -> None:
    """Allocate a volume anew and fill it durably with the bytes that ``read`` reads of another one.

    :param name: the other volume's name on the backend. Another daemon may still write to that
        volume, or delete it.
    :param read: reads the other volume in order; may raise any error if the bytes are not as
        expected.
    :raises bootvol.errors.BackendFailed: if the other volume no longer exists, or if the backend
        fails.
    """
    async with AsyncExitStack() as stack:
        if target.capabilities.clones:
            await target.clone(name, target.size)
            reader = await target.open_reader()
            stack.push_async_callback(reader.close)
            await read(reader)
            return
        former = await target.backend.open_reader(name)
        stack.push_async_callback(former.close)
        await target.renew()
        writer = await target.open_writer()
        stack.push_async_callback(writer.close)
        zeros = not target.capabilities.reads_zero_when_new
        await read(CopyingReader(former, writer, zeros=zeros))
        await writer.flush()


async def resumes(
    copy: CopyPipeline, checkpoint: Checkpoint, target: Target, inherited: str | None = None
) -> bool:
    """Let a copy go on from a checkpoint; return False if the bytes there are other ones.

    :param inherited: see :attr:`.Progress.inherited`.
    :raises bootvol.errors.BackendFailed: if the backend cannot tell now.
    """
    try:
        if inherited is not None and isinstance(target, VolumeTarget):
            await inherit(target, inherited, lambda each: copy.restore(each, checkpoint))
        else:
            reader = await target.open_reader()
            try:
                await copy.restore(reader, checkpoint)
            finally:
                await reader.close()
    except PrefixChanged:
        return False
    except BackendFailed as error:
        if short_of(error) or isinstance(error, WrongStore | BackendInterrupted):
            raise
        return False
    return True
