"""How far a running import has come."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import attrs

from bootvol.imaging.pipeline import Copy
from bootvol.model import STARTED_OVER, Caution, Checkpoint, Import, Phase
from bootvol.service.turns import Turn

Keep = Callable[[], Awaitable[object]]


@attrs.define
class Progress:
    """How far a running import has come; its worker writes it down now and then.

    :ivar since: seconds since 1970 when this attempt began.
    :ivar began_at: bytes that were on the volume by then, less those that were passed over.
    :ivar validator: of the stream that is read, or was last.
    :ivar resume: the checkpoint to go on from, until there is a copy that has its own.
    :ivar inherited: under which name on the backend what that is of lies, if it is not the
        volume's own; until it is copied.
    :ivar expected: the image's size in bytes as its source gave it, until there is a copy.
    :ivar stopping: the import has been cancelled: whatever fails now, it is not tried again.
    :ivar cached: whether it is made from a golden volume; None until that is known.
    :ivar cloned: bytes that came at once, without a copy.
    :ivar warned: what people should know of what has been done so far, by the codes.
    :ivar staged: what has come is not on the volume yet, and lost when the daemon ends.
    :ivar turn: the place in its lane, which is given back at a pause.
    :ivar started: until then the row of the import knows more of it, its checkpoint for one.
    """

    since: float
    phase: Phase = Phase.ALLOCATING
    began_at: int = 0
    expected: int | None = None
    validator: str | None = None
    resume: Checkpoint | None = None
    inherited: str | None = None
    copy: Copy | None = None
    stopping: bool = False
    staged: bool = False
    cached: bool | None = None
    cloned: int | None = None
    started: bool = False
    warned: dict[str, Caution] = attrs.Factory(dict)
    turn: Turn = attrs.Factory(Turn)

    def mark(self) -> object:
        """Return something that changes whenever the import comes further."""
        return self.phase, self.bytes_done, self.copy and self.copy.read_back

    def start(self, task: Import) -> None:
        """Note that the import begins, or that what failed of it is tried once more."""
        self.started = True
        if self.staged:
            # What has come by then was not on the volume.
            self.copy, self.staged = None, False
        self.resume, self.expected = task.checkpoint, task.image.size_bytes
        self.warned = {each.code: each for each in task.warnings if each == STARTED_OVER}
        # What was on the volume before counts for no rate.
        self.began_at = self.bytes_done

    def warn(self, *warnings: Caution) -> None:
        """Keep warnings, whatever else is done."""
        self.warned.update({each.code: each for each in warnings})

    @property
    def warnings(self) -> Sequence[Caution]:
        """What people should know, of what is being copied, too."""
        found = self.copy.warnings if self.copy else ()
        return list({**self.warned, **{each.code: each for each in found}}.values())

    def start_over(self) -> None:
        """Note that a copy begins with the first byte, and warn if that is not the first time.

        What was known of the image may not be so any more.
        """
        again = STARTED_OVER.code in self.warned or self.bytes_done
        self.warned.clear()
        if again:
            self.warn(STARTED_OVER)

    async def forget(self, keep: Keep) -> None:
        """Let go of the checkpoint, durably, before anything that it vouches for is changed.

        :param keep: writes this down durably.
        """
        kept = self.checkpoint is not None
        self.copy = self.resume = self.inherited = None
        if kept:
            await keep()

    def arrive(self, size: int) -> None:
        """Note that all of an image came at once; ``size`` in bytes."""
        self.copy = self.resume = self.inherited = None
        self.cloned = self.expected = size

    def begin(self, copy: Copy, phase: Phase, now: float) -> None:
        """Note that a copy begins, or goes on."""
        self.copy, self.inherited = copy, None
        self.began_at = copy.offset - copy.skipped
        self.since, self.phase = now, phase

    @property
    def checkpoint(self) -> Checkpoint | None:
        """Where another attempt may go on."""
        return self.copy.checkpoint if self.copy else self.resume

    @property
    def reached(self) -> tuple[int, str] | None:
        """How much the source need not send again: see :attr:`.Copy.reached`."""
        if self.copy is not None:
            return self.copy.reached
        return (self.resume.offset, self.resume.validator) if self.resume else None

    @property
    def bytes_done(self) -> int:
        """How much of the image is on the volume."""
        if self.copy is not None:
            return self.copy.offset
        return self.resume.offset if self.resume else self.cloned or 0

    @property
    def bytes_total(self) -> int | None:
        """How much there is of the image."""
        return self.copy.size if self.copy else self.expected

    def columns(self, now: float) -> dict[str, Any]:
        """Return the columns of the import's row that this fills."""
        if not self.started:
            return {"phase": self.phase}
        arrived = self.phase is Phase.DOWNLOADING and self.bytes_done == self.bytes_total
        phase = Phase.FINISHING if arrived else self.phase
        # Zeros that were passed over, and what came at once, say nothing about the rest.
        copy = self.copy
        moved = copy.offset - copy.skipped - self.began_at if copy is not None else 0
        rate = moved / (now - self.since) if now > self.since else 0
        checkpoint = None if self.staged else self.checkpoint
        return {
            "phase": Phase.QUEUED if self.turn.wanted else phase,
            "bytes_done": self.bytes_done,
            "bytes_total": self.bytes_total,
            "bytes_per_second": max(0, int(rate)),
            "cached": self.cached,
            "warnings": [attrs.asdict(each) for each in self.warnings],
            "durable_bytes": checkpoint.offset if checkpoint else None,
            "durable_digest": checkpoint.digest if checkpoint else None,
            "durable_name": self.inherited if checkpoint else None,
            "validator": checkpoint.validator if checkpoint else None,
        }
