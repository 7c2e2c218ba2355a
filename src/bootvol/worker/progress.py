"""The progress of a running import."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

import attrs

from bootvol.errors import ErrorReport
from bootvol.imaging.source_size import SourceSize
from bootvol.model import STARTED_OVER, Caution, Checkpoint, Import, Phase
from bootvol.worker.lane_place import LanePlace

Heartbeat = Callable[[], Awaitable[object]]

#: Largest number that a database stores.
_LARGEST: Final = 2**63 - 1


class Copy(Protocol):
    """The state of a running copy: see :class:`bootvol.imaging.pipeline.CopyPipeline`."""

    @property
    def offset(self) -> int: ...

    @property
    def skipped(self) -> int: ...

    @property
    def size(self) -> int | None: ...

    @property
    def read_back(self) -> int: ...

    @property
    def checkpoint(self) -> Checkpoint | None: ...

    @property
    def reached(self) -> tuple[int, str] | None: ...

    @property
    def warnings(self) -> tuple[Caution, ...]: ...


@attrs.define
class Progress:
    """The progress of a running import; its worker records the progress periodically.

    :ivar since: start of this attempt, in seconds since 1970.
    :ivar began_at: bytes on the volume at the start of this attempt, less the skipped bytes.
    :ivar validator: validator of the current stream, or of the last one.
    :ivar resume: the checkpoint to resume from, until a copy with its own checkpoint exists.
    :ivar inherited: name on the backend of the volume that the checkpoint describes, if that is not
        the import's own volume. Set until its bytes are copied.
    :ivar expected: size of the image in bytes as stated by its source, until a copy exists.
    :ivar stated: all that the source has stated about the length of the image.
    :ivar stopping: whether the import has been cancelled. Failures are not retried after that.
    :ivar cached: whether the volume is made from a cached image; None while
        unknown.
    :ivar cloned: bytes that arrived at once, without a copy.
    :ivar failure: the error of the last failed attempt, for callers while the import waits for
        the next one.
    :ivar warned: warnings for users about the work so far, by code.
    :ivar staged: whether the import starts over when the daemon ends, because no checkpoint
        describes the received bytes.
    :ivar mixed: whether the last stream's bytes came from several servers.
    :ivar parts: number of parts of images that were read before a copy.
    :ivar turn: the job's place in its lane; given back during a pause.
    :ivar started: whether the import has begun. Until then the import's row knows more than this
        object, for example the checkpoint.
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
    mixed: bool = False
    parts: int = 0
    cached: bool | None = None
    cloned: int | None = None
    started: bool = False
    failure: ErrorReport | None = None
    warned: dict[str, Caution] = attrs.Factory(dict)
    lane_place: LanePlace = attrs.Factory(LanePlace)
    stated: SourceSize = attrs.Factory(SourceSize)

    def mark(self) -> object:
        """Return a value that changes whenever the import makes progress."""
        return self.phase, self.parts, self.bytes_done, self.copy and self.copy.read_back

    def start(self, task: Import) -> None:
        """Note that the import begins, or that a failed part is tried once more."""
        self.started = True
        if self.staged:
            # The bytes received so far were not on the volume.
            self.copy, self.staged = None, False
        self.resume, self.expected = task.checkpoint, task.image.size_bytes
        self.stated = SourceSize.of(task)
        self.warned = {each.code: each for each in task.warnings if each == STARTED_OVER}
        # Bytes that were on the volume before do not count in the rate.
        self.began_at = self.bytes_done

    def warn(self, *warnings: Caution) -> None:
        """Add warnings that outlast the running copy."""
        self.warned.update({each.code: each for each in warnings})

    @property
    def warnings(self) -> Sequence[Caution]:
        """The warnings for users, including those of the running copy."""
        found = self.copy.warnings if self.copy else ()
        return list({**self.warned, **{each.code: each for each in found}}.values())

    def start_over(self) -> None:
        """Note that a copy begins with the first byte; warn if an earlier copy had begun.

        Earlier knowledge of the image is dropped, since the image may have changed.
        """
        again = STARTED_OVER.code in self.warned or self.bytes_done
        self.warned.clear()
        if again:
            self.warn(STARTED_OVER)

    async def forget(self, heartbeat: Heartbeat) -> None:
        """Drop the checkpoint durably, before the bytes that it describes are changed.

        :param heartbeat: records the progress durably.
        """
        kept = self.checkpoint is not None
        self.copy = self.resume = self.inherited = None
        if kept:
            await heartbeat()

    def arrive(self, size: int) -> None:
        """Note that a whole image of ``size`` bytes arrived at once."""
        self.copy = self.resume = self.inherited = None
        self.cloned = self.expected = size

    def begin(self, copy: Copy, phase: Phase, now: float) -> None:
        """Note that a copy begins or continues."""
        self.copy, self.inherited = copy, None
        self.began_at = copy.offset - copy.skipped
        self.since, self.phase = now, phase

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The checkpoint that another attempt may resume from."""
        return self.copy.checkpoint if self.copy else self.resume

    @property
    def reached(self) -> tuple[int, str] | None:
        """The length that the source need not send again: see :attr:`.CopyPipeline.reached`."""
        if self.copy is not None:
            return self.copy.reached
        return (self.resume.offset, self.resume.validator) if self.resume else None

    @property
    def bytes_done(self) -> int:
        """The bytes of the image that are on the volume."""
        if self.copy is not None:
            return self.copy.offset
        return self.resume.offset if self.resume else self.cloned or 0

    @property
    def bytes_total(self) -> int | None:
        """The size of the image in bytes."""
        return self.copy.size if self.copy else self.expected

    def columns(self, now: float) -> dict[str, object]:
        """Return the values for the columns of the import's row."""
        if not self.started:
            return {"phase": self.phase}
        arrived = self.phase is Phase.DOWNLOADING and self.bytes_done == self.bytes_total
        phase = Phase.FINISHING if arrived else self.phase
        # Skipped zeros, and bytes that arrived at once, say nothing about the rate of the rest.
        copy = self.copy
        moved = copy.offset - copy.skipped - self.began_at if copy is not None else 0
        rate = moved / (now - self.since) if now > self.since else 0
        checkpoint = None if self.staged else self.checkpoint
        failure = self.failure if self.phase is Phase.RETRYING else None
        return {
            "phase": Phase.QUEUED if self.lane_place.wanted else phase,
            "bytes_done": self.bytes_done,
            "bytes_total": self.bytes_total,
            "bytes_per_second": max(0, int(rate)),
            "cached": self.cached,
            "failure": attrs.asdict(failure) if failure else None,
            "warnings": [attrs.asdict(each) for each in self.warnings],
            "durable_bytes": checkpoint.offset if checkpoint else None,
            "durable_digest": checkpoint.digest if checkpoint else None,
            "durable_blank": checkpoint.blank if checkpoint else None,
            "durable_name": self.inherited if checkpoint else None,
            "validator": checkpoint.validator if checkpoint else None,
            # A larger size fits no volume, and no column.
            "stated_size": None if (self.stated.size or 0) > _LARGEST else self.stated.size,
            "stated_validator": self.stated.validator,
        }
