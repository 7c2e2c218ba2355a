"""Makes the factories of all tasks, and gives each task what it needs."""

from __future__ import annotations

import attrs
from twisted.internet.interfaces import IReactorTime

from bootvol.interfaces import IHypervisor
from bootvol.store.database import Database
from bootvol.worker.copier import Copier
from bootvol.worker.image_cache import ImageCache
from bootvol.worker.importer import Importer
from bootvol.worker.tasks.adoption import AdoptSnapshot, AdoptVolume, GiveUp
from bootvol.worker.tasks.attachments import Attach, Detach, VolumeAccess
from bootvol.worker.tasks.copies import MakeFromSnapshot, MakeFromVolume
from bootvol.worker.tasks.factories import TaskFactories
from bootvol.worker.tasks.replacing import ReplaceData
from bootvol.worker.tasks.servers import BuildServer, EndServer, PowerServer
from bootvol.worker.tasks.snapshots import MakeSnapshot, RemoveSnapshot
from bootvol.worker.tasks.storage import Storage
from bootvol.worker.tasks.uploads import Takers, UploadVolume
from bootvol.worker.tasks.volumes import ExtendVolume, MakeBlank, MakeFromImage, RemoveVolume


@attrs.frozen
class TaskParts:
    """The parts of a daemon that tasks use.

    :ivar hypervisor: None if other systems run the servers.
    :ivar zone: the availability zone of all servers.
    :ivar daemon: id of the daemon.
    """

    storage: Storage
    copier: Copier
    importer: Importer
    image_cache: ImageCache
    access: VolumeAccess
    takers: Takers
    database: Database
    clock: IReactorTime
    hypervisor: IHypervisor | None
    zone: str
    daemon: str


def factories(parts: TaskParts) -> TaskFactories:
    """Return a factory for each kind of task, with all that the task needs."""
    storage, image_cache, access = parts.storage, parts.image_cache, parts.access
    database, clock, daemon = parts.database, parts.clock, parts.daemon
    hypervisor, zone = parts.hypervisor, parts.zone
    copying = storage, parts.copier, database, clock
    return TaskFactories(
        make_blank=lambda volume: MakeBlank(volume, storage, clock),
        make_from_image=lambda volume, source: MakeFromImage(
            volume, source, storage, parts.importer, image_cache, clock
        ),
        make_from_snapshot=lambda volume: MakeFromSnapshot(volume, *copying),
        make_from_volume=lambda volume: MakeFromVolume(volume, *copying),
        extend_volume=lambda volume: ExtendVolume(volume, storage, hypervisor),
        upload_volume=lambda volume: UploadVolume(volume, storage, parts.takers, database, clock),
        replace_data=lambda volume: ReplaceData(volume, *copying),
        remove_volume=lambda volume: RemoveVolume(volume, storage, image_cache),
        adopt_volume=lambda volume: AdoptVolume(volume, storage, database, clock),
        give_up=lambda subject: GiveUp(subject, storage, image_cache),
        adopt_snapshot=lambda snapshot: AdoptSnapshot(snapshot, storage, database, clock),
        make_snapshot=lambda snapshot: MakeSnapshot(snapshot, *copying),
        remove_snapshot=lambda snapshot: RemoveSnapshot(snapshot, storage),
        attach=lambda volume: Attach(volume, access, hypervisor, daemon),
        detach=lambda volume: Detach(volume, access, hypervisor, daemon),
        build_server=lambda server: BuildServer(server, access, hypervisor, database, zone, daemon),
        power_server=lambda server: PowerServer(server, access, hypervisor, database, zone),
        end_server=lambda server: EndServer(server, access, hypervisor, database, zone),
    )
