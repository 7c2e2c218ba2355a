"""Makes the task that the status of a volume, snapshot or server asks for."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from bootvol.lifecycle import POWERING, REPLACING, Status
from bootvol.model import Server, Snapshot, Volume
from bootvol.worker.tasks.task import Task


@attrs.frozen
class TaskFactories:
    """One factory for each kind of task; :mod:`bootvol.composition` makes the factories.

    :ivar make_from_image: takes the volume, and the name of the image's source.
    """

    make_blank: Callable[[Volume], Task]
    make_from_image: Callable[[Volume, str], Task]
    make_from_snapshot: Callable[[Volume], Task]
    make_from_volume: Callable[[Volume], Task]
    extend_volume: Callable[[Volume], Task]
    upload_volume: Callable[[Volume], Task]
    replace_data: Callable[[Volume], Task]
    remove_volume: Callable[[Volume], Task]
    adopt_volume: Callable[[Volume], Task]
    give_up: Callable[[Volume | Snapshot], Task]
    make_snapshot: Callable[[Snapshot], Task]
    adopt_snapshot: Callable[[Snapshot], Task]
    remove_snapshot: Callable[[Snapshot], Task]
    attach: Callable[[Volume], Task]
    detach: Callable[[Volume], Task]
    build_server: Callable[[Server], Task]
    power_server: Callable[[Server], Task]
    end_server: Callable[[Server], Task]

    def task_for(self, subject: Volume | Snapshot | Server) -> Task:
        """Return the task that the status of a resource asks for; imports have their own lane."""
        removed = subject.status is Status.DELETING
        if isinstance(subject, Server):
            if subject.status in POWERING:
                return self.power_server(subject)
            return (self.end_server if removed else self.build_server)(subject)
        # A disk that was not taken over to the end is given back, and never deleted.
        if subject.status is Status.GIVING_UP or (removed and subject.place is not None):
            return self.give_up(subject)
        if isinstance(subject, Volume):
            return self._of_volume(subject)
        if removed:
            return self.remove_snapshot(subject)
        return (self.make_snapshot if subject.place is None else self.adopt_snapshot)(subject)

    def _of_volume(self, volume: Volume) -> Task:
        asked = {
            Status.ATTACHING: self.attach,
            Status.DETACHING: self.detach,
            Status.EXTENDING: self.extend_volume,
            Status.UPLOADING: self.upload_volume,
            **dict.fromkeys(REPLACING, self.replace_data),
            Status.DELETING: self.remove_volume,
        }.get(volume.status)
        if asked is not None:
            return asked(volume)
        if volume.place is not None:
            return self.adopt_volume(volume)
        if volume.snapshot_id is not None:
            return self.make_from_snapshot(volume)
        if volume.source_id is not None:
            return self.make_from_volume(volume)
        return self.make_blank(volume)
