"""Takes over images of other programs, and gives images up.  Everything here blocks.

The mark of our images has the image's own name.  So an image with the mark for another name is
not ours yet, and the rename makes the image ours in one step.  The rename back does the reverse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Final

from bootvol.errors import BackendFailed, DiskNotAdoptable, DiskNotFound
from bootvol.model import StoredDisk
from bootvol_plugins.rbd.bindings import Image
from bootvol_plugins.rbd.images import Images, InUse
from bootvol_plugins.rbd.locks import Locked, alone
from bootvol_plugins.rbd.marks import DEPTH, MARK, SIZE, is_marked, metadata

#: Prefix of the object with the id of an image; the image's name follows (Ceph's rbd_types.h).
_ID_OBJECT: Final = "rbd_id."
#: Cinder renames a deleted image like this while clones of the image exist.
_DELETED: Final = ".deleted"
#: Cinder's snapshot of an image for a clone; the clone's name comes before.
_FOR_CLONE: Final = ".clone_snap"
#: The most characters of a name.
_LONGEST: Final = 255
#: The most parents to follow.
_DEEPEST: Final = 8

Beat = Callable[..., int]


def stored_disks(images: Images, beat: Beat) -> list[StoredDisk]:
    """See :meth:`bootvol.interfaces.IAdoptingBackend.stored_disks`."""
    found = []
    for name in _names(images):
        beat()
        disk = stored_disk(images, name)
        if disk is not None:
            found.append(disk)
    return found


def stored_disk(images: Images, name: str) -> StoredDisk | None:
    """See :meth:`bootvol.interfaces.IAdoptingBackend.stored_disk`."""
    rbd = images.pool.bindings.rbd
    if not _is_name(name):
        return None
    with suppress(rbd.ImageNotFound), _opened(images, name) as image:
        if is_marked(image, name) or images.is_half_made(name):
            return StoredDisk(name, image.size(), name)
        obstacle = _obstacle(images, name, image)
        if obstacle is None and _is_open(images, image):
            obstacle = "another program has the image open"
        return StoredDisk(name, image.size(), None, obstacle)
    return None


def stored_snapshots(images: Images, beat: Beat) -> list[StoredDisk]:
    """See :meth:`bootvol.interfaces.ISnapshotAdoptingBackend.stored_snapshots`."""
    found = []
    for name in _names(images):
        beat()
        with suppress(images.pool.bindings.rbd.ImageNotFound), _opened(images, name) as image:
            ours = is_marked(image, name)
            for each in list(image.list_snaps()):
                if each["namespace"] == images.pool.bindings.rbd.RBD_SNAP_NAMESPACE_TYPE_USER:
                    obstacle = None if ours else "the image with the snapshot is not taken over yet"
                    obstacle = _snapshot_obstacle(each["name"]) or obstacle
                    disk = StoredDisk(each["name"], each["size"], None, obstacle, name)
                    found.append(disk)
    return found


def adopt(images: Images, place: str, volume: str, unit: int) -> int:
    """See :meth:`bootvol.interfaces.IAdoptingBackend.adopt`.

    :raises InUse: if another client has the image open.
    """
    rbd, ioctx = images.pool.bindings.rbd, images.pool.ioctx
    called = f"Image {place} on backend {images.backend}"
    if not _is_name(place):
        raise DiskNotFound(f"{called} does not exist.")
    with _alone(images, place):
        _complete_rename(images, place, volume)
        if not _is_volume(images, volume):
            try:
                with closing(rbd.Image(ioctx, place, read_only=True)) as image:
                    obstacle = _obstacle(images, place, image)
                    if is_marked(image, place) or images.is_half_made(place):
                        obstacle = "the image belongs to bootvol"
                    if obstacle is not None:
                        raise DiskNotAdoptable(f"{called} cannot be taken over: {obstacle}.")
                    if _is_open(images, image):
                        raise InUse(f"A guest or another program has image {place} open.")
                    depth = _depth(images, image)
                with closing(rbd.Image(ioctx, place)) as image:
                    image.metadata_set(DEPTH, str(depth))
                    image.metadata_set(SIZE, str(image.size()))
                    image.metadata_set(MARK, volume)
                rbd.RBD().rename(ioctx, place, volume)
            except rbd.ImageNotFound as error:
                raise DiskNotFound(f"{called} does not exist.") from error
        return _whole(images, volume, unit)


def _whole(images: Images, volume: str, unit: int) -> int:
    """Make a volume larger, up to a whole number of units; return the size in bytes."""
    with closing(images.pool.bindings.rbd.Image(images.pool.ioctx, volume)) as image:
        size = -(-int(image.size()) // unit) * unit
        if image.size() != size:
            images.check_size(volume, size)
            image.resize(size)
        image.metadata_set(SIZE, str(size))
    return size


def give_up(images: Images, volume: str, place: str, beat: Beat) -> None:
    """See :meth:`bootvol.interfaces.IAdoptingBackend.give_up`.

    :raises InUse: if another client has the image open.
    """
    rbd, ioctx = images.pool.bindings.rbd, images.pool.ioctx
    if images.is_half_made(volume):
        # A clone of a snapshot, whose bytes the snapshot still has.
        images.delete(volume, beat)
        return
    with _alone(images, place):
        _complete_rename(images, place, volume)
        try:
            with closing(rbd.Image(ioctx, volume, read_only=True)) as image:
                if not is_marked(image, volume):
                    return
                if _is_open(images, image):
                    raise InUse(f"A guest or another program has {images.called(volume)} open.")
            rbd.RBD().rename(ioctx, volume, place)
        except rbd.ImageNotFound:
            return
        except rbd.ImageExists as error:
            raise BackendFailed(
                f"{images.called(volume)} cannot be given up: an image has the name {place}."
            ) from error


def adopt_snapshot(
    images: Images, volume: str, place: str, snapshot: str, unit: int, beat: Beat
) -> int | None:
    """See :meth:`bootvol.interfaces.ISnapshotAdoptingBackend.adopt_snapshot`."""
    rbd = images.pool.bindings.rbd
    with closing(images.open_reader(volume)) as origin:
        exists = bool(place) and place.isprintable() and origin.snap_exists(place)
    if images.is_half_made(snapshot):
        images.delete(snapshot, beat)
    if not _is_volume(images, snapshot):
        if not exists:
            return None
        obstacle = _snapshot_obstacle(place)
        if obstacle is not None:
            raise DiskNotAdoptable(f"Snapshot {place} cannot be taken over: {obstacle}.")
        _clone(images, volume, place, snapshot)
    if exists:
        try:
            with closing(rbd.Image(images.pool.ioctx, volume)) as origin:
                if origin.is_protected_snap(place):
                    origin.unprotect_snap(place)
                origin.remove_snap(place)
        except rbd.ImageNotFound:
            # An earlier call has removed the snapshot meanwhile.
            pass
        except rbd.ImageBusy as error:
            images.delete(snapshot, beat)
            raise DiskNotAdoptable(
                f"Snapshot {place} cannot be taken over: images are clones of the snapshot in the"
                " form of old clients. Flatten these images first."
            ) from error
    return _whole(images, snapshot, unit)


def _clone(images: Images, volume: str, place: str, target: str) -> None:
    """Make a volume of a snapshot within another one."""
    rbd, ioctx = images.pool.bindings.rbd, images.pool.ioctx
    with closing(rbd.Image(ioctx, volume, snapshot=place, read_only=True)) as origin:
        size, depth = origin.size(), int(metadata(origin, DEPTH) or "0") + 1
    images.leave_note(target, "")
    rbd.RBD().clone(ioctx, volume, place, ioctx, target, features=images.features)
    images.finish(target, size, depth)


@contextmanager
def _alone(images: Images, place: str) -> Iterator[None]:
    """Keep other daemons from taking a place over or giving one up.

    :raises InUse: if another daemon does so, or died less than 30 seconds ago.
    """
    try:
        with alone(images.pool, place):
            yield
    except Locked as error:
        raise InUse(f"Another client changes image {place}.") from error


def _complete_rename(images: Images, place: str, volume: str) -> None:
    """Complete a rename that broke off, so that an image has one name.

    A rename makes the object with the image's id under the new name, changes the pool's directory,
    and removes the object with the former name.  Between these steps both names lead to the image.
    """
    known = _id(images, place)
    if known is None or known != _id(images, volume):
        return
    listed = _names(images)
    if (place in listed) == (volume in listed):
        raise BackendFailed(f"Image {place} on backend {images.backend} has two names.")
    images.pool.ioctx.remove_object(_ID_OBJECT + (volume if place in listed else place))


def _id(images: Images, name: str) -> str | None:
    rbd = images.pool.bindings.rbd
    with suppress(rbd.ImageNotFound, rbd.InvalidArgument), _opened(images, name) as image:
        return image.id()
    return None


def _names(images: Images) -> list[str]:
    return list(images.pool.bindings.rbd.RBD().list(images.pool.ioctx))


@contextmanager
def _opened(images: Images, name: str) -> Iterator[Image]:
    rbd = images.pool.bindings.rbd
    with closing(rbd.Image(images.pool.ioctx, name, read_only=True)) as image:
        yield image


def _is_name(place: str) -> bool:
    """Return whether a text can be the name of an image, and of nothing elsewhere."""
    return 0 < len(place) <= _LONGEST and place.isprintable() and not {"/", "@"} & set(place)


def _is_volume(images: Images, volume: str) -> bool:
    """Return whether a volume exists.

    :raises BackendFailed: if the name belongs to something else.
    """
    with suppress(images.pool.bindings.rbd.ImageNotFound), _opened(images, volume) as image:
        if not is_marked(image, volume):
            raise BackendFailed(f"The place of {images.called(volume)} is taken.")
        return True
    return False


def _is_open(images: Images, image: Image) -> bool:
    return not all(images.pool.is_ours(each["addr"]) for each in image.watchers_list())


def _obstacle(images: Images, name: str, image: Image) -> str | None:
    """Return why a foreign image cannot be taken over, whether it is open or not."""
    rbd = images.pool.bindings.rbd
    if name.endswith(_DELETED):
        return "the image was deleted, and stays for its clones"
    if image.old_format() or not image.features() & rbd.RBD_FEATURE_LAYERING:
        return "clones of the image are not possible"
    if image.features() & rbd.RBD_FEATURE_MIGRATING:
        return "the image is on its way to another place"
    if image.size() == 0:
        return "the image is empty"
    return None


def _snapshot_obstacle(name: str) -> str | None:
    return "a clone needs the snapshot" if name.endswith(_FOR_CLONE) else None


def _depth(images: Images, image: Image) -> int:
    """Return how many images of the pool an image's reads go through, besides the image itself."""
    rbd, depth = images.pool.bindings.rbd, 0
    # Parents in other pools and in the trash end the search: the pool's user may not read them.
    with suppress(rbd.Error):
        pool, name, snapshot = image.parent_info()
        depth = 1
        while depth < _DEEPEST and pool == images.pool.name:
            with closing(
                rbd.Image(images.pool.ioctx, name, snapshot=snapshot, read_only=True)
            ) as parent:
                pool, name, snapshot = parent.parent_info()
            depth += 1
    return depth
