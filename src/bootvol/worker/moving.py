"""Copies the data of a volume for good: verified, and resumed after the end of a daemon."""

from __future__ import annotations

from contextlib import AsyncExitStack

from bootvol.imaging.pipeline import CopyPipeline
from bootvol.imaging.target import VolumeTarget
from bootvol.imaging.volumes import VolumeStream
from bootvol.interfaces import IImageStream
from bootvol.model import Image, Phase
from bootvol.worker.clone_or_copy import Origin
from bootvol.worker.copier import Copier
from bootvol.worker.lane_place import YieldingStream
from bootvol.worker.progress import Heartbeat, Progress
from bootvol.worker.takeover import resumes


async def move(
    copier: Copier, origin: Origin, target: VolumeTarget, progress: Progress, heartbeat: Heartbeat
) -> None:
    """Make a volume with the data of another one, which does not change meanwhile.

    :param progress: has the checkpoint of an earlier attempt, and records how far the copy has
        come.
    :param heartbeat: records the progress durably.
    :raises bootvol.errors.NoSpace: if the backend has no room.
    :raises bootvol.errors.BackendFailed: if a backend fails.
    """
    backend = origin.backend
    if target.backend is backend and backend.capabilities.clones:
        await target.clone(origin.name, origin.size)
        progress.arrive(origin.size)
        return
    copy = await _restored(copier, origin, target, progress)
    if copy is None:
        await progress.forget(heartbeat)
        await target.renew()
        copy = copier.copy(_disk(origin), target, inspected=False)
    progress.begin(copy, Phase.CLONING, copier.clock.seconds())
    async with AsyncExitStack() as stack:
        reader = await backend.open_reader(origin.name)
        stack.push_async_callback(reader.close)
        writer = await target.open_writer()
        stack.push_async_callback(writer.close)
        block = backend.capabilities.block_size
        # The name is never used again, and nobody writes to the volume.
        volume = VolumeStream(reader, origin.size, block, copy.offset, origin.name)
        stream: IImageStream = YieldingStream(volume, progress.lane_place, copier.clock)
        digest = await copy.run(stream, writer, plain=True)
    if copier.limits.read_back and digest is not None:
        await copier.verify(target, digest, origin.size)


async def _restored(
    copier: Copier, origin: Origin, target: VolumeTarget, progress: Progress
) -> CopyPipeline | None:
    """Return a copy that resumes from the checkpoint; None if no valid checkpoint exists."""
    checkpoint = progress.checkpoint
    if checkpoint is None or checkpoint.validator != origin.name:
        return None
    copy = copier.copy(_disk(origin), target, inspected=False, blank=checkpoint.blank)
    return copy if await resumes(copy, checkpoint, target) else None


def _disk(origin: Origin) -> Image:
    return Image("", "", origin.name, "raw")
