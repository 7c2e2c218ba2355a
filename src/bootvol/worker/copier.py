"""The factory of copies, and the limits of one import."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import attrs
from twisted.internet.interfaces import IReactorTime

from bootvol.imaging.buffers import Memory
from bootvol.imaging.pipeline import CopyPipeline
from bootvol.imaging.target import Target
from bootvol.interfaces import IImageStream, IPrefetchingStream
from bootvol.model import GIB, Digest, Image
from bootvol.tables import Imports
from bootvol.threads import Threads

_MIB: Final = 1024 * 1024


@attrs.frozen
class ImportLimits:
    """The resources that one import may use.

    :ivar checkpoint: bytes between two checkpoints.
    :ivar retries: how often in a row a source may break off before the import's checkpoint gets
        further than ever before.
    :ivar spool: the folder that holds containers while their disks are read.
    :ivar spool_size: limit of all containers in the spool together, in bytes; None for the free
        space.
    :ivar read_back: whether to read each volume once more, and compare it with the written bytes.
    :ivar strict: whether to refuse an image that nothing identifies as a disk.
    """

    checkpoint: int
    retries: int
    spool: Path
    spool_size: int | None = None
    read_back: bool = False
    strict: bool = False

    @classmethod
    def configured(cls, table: Imports) -> ImportLimits:
        """Return the limits in the table ``[imports]``."""
        return cls(
            table.checkpoint_mib * _MIB,
            table.retries,
            table.spool,
            int(table.spool_gib * GIB) if table.spool_gib else None,
            table.verify == "read-back",
            table.strict_images,
        )


@attrs.frozen
class Copier:
    """A factory of copies that have not begun yet.

    :ivar memory: the memory of all copies.
    :ivar threads: the threads that hash.
    :ivar clock: the reactor.
    """

    limits: ImportLimits
    memory: Memory
    threads: Threads
    clock: IReactorTime

    def copy(
        self,
        image: Image,
        target: Target,
        container: str | None = None,
        *,
        inspected: bool = True,
        blank: bool = True,
    ) -> CopyPipeline:
        """Return a copy of ``image`` to ``target``.

        :param container: the known container format of an image that is copied as it is; else None.
        :param inspected: false for the content of a volume, which may be anything.
        :param blank: false if ``target`` may have bytes of another disk: see
            :class:`bootvol.model.Checkpoint`.
        """
        able = target.capabilities
        if not blank:
            able = attrs.evolve(able, reads_zero_when_new=False)
        return CopyPipeline(
            image,
            target.size,
            able,
            self.memory,
            self.threads,
            self.clock,
            self.limits.checkpoint,
            container,
            self.limits.read_back,
            self.limits.strict,
            inspected,
        )

    def lend_ahead(self, stream: IImageStream, stack: AsyncExitStack) -> None:
        """Lend memory to a stream that can fetch bytes ahead, until ``stack`` is closed."""
        if IPrefetchingStream.providedBy(stream):
            IPrefetchingStream(stream).lend(stack.enter_context(self.memory.ahead()))

    async def verify(self, target: Target, digest: Digest, length: int) -> None:
        """Read back the bytes written to ``target``, and compare them with a digest.

        :param length: how many of the first bytes the digest covers.
        :raises bootvol.errors.BackendFailed: if the backend returns other bytes, or none.
        """
        reader = await target.open_reader()
        try:
            await self.copy(Image("", "", "", "raw"), target).verify(reader, digest, length)
        finally:
            await reader.close()
