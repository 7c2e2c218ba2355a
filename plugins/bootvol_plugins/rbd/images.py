"""Operations on the images of a pool. Everything here blocks.

An image is ours if its metadata has a mark with the image's own name. A foreign clone of our image
inherits the mark, but has another name. Making an image takes several steps. Before the first
step, the daemon leaves a note in the pool's metadata. The note marks half-made images as ours.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Final

from twisted.logger import Logger

from bootvol.errors import BackendFailed, NoSpace, VolumeCutOff, VolumeMissing
from bootvol_plugins.rbd.bindings import Image, Ioctx
from bootvol_plugins.rbd.cluster import Pool
from bootvol_plugins.rbd.locations import Location
from bootvol_plugins.rbd.locks import Locked, alone
from bootvol_plugins.rbd.marks import DEPTH, MARK, SIZE, is_marked, is_whole, metadata
from bootvol_plugins.rbd.objects import TRASH, is_quickly_removed, make_trash

#: Prefix of a note in the pool's metadata; the volume's name follows.
_NOTE: Final = "bootvol.making."
#: Prefix of the snapshot that a clone is made from; the clone's name follows.
_SNAPSHOT: Final = "bootvol-"
#: The most images that a clone's reads may go through. More would make reads too slow.
_DEEPEST: Final = 8

#: Error codes of the removal of an image that another client has open, or is removing, too.
_IN_USE: Final = frozenset({errno.EBUSY, errno.ESTALE})

_log = Logger()

Beat = Callable[..., int]


class InUse(Exception):
    """A client has the image open, is removing the image, or died too recently."""


class Images:
    """The images of a pool that are volumes of a backend.

    :ivar pool: the pool.
    :ivar backend: the backend's name.
    """

    def __init__(self, pool: Pool, backend: str) -> None:
        self.pool = pool
        self._rbd = pool.bindings.rbd
        self._calls = self._rbd.RBD()
        self.backend = backend

    # --- making and removing ---------------------------------------------------------------------

    def allocate(self, volume: str, size: int, beat: Beat) -> None:
        """See :meth:`bootvol.interfaces.IBlockBackend.allocate`."""
        if self._note(volume) is not None:
            # The half-made image may be a clone with a full copy of much data.
            self._remove(volume, beat)
        try:
            with self._opened(volume, read_only=True) as image:
                if not is_marked(image, volume) or image.size() != size:
                    raise BackendFailed(
                        f"The place of {self.called(volume)} is taken by something else."
                    )
        except self._rbd.ImageNotFound:
            self.check_size(volume, size)
            self.leave_note(volume, "")
            try:
                self._calls.create(
                    self.pool.ioctx, volume, size, old_format=False, features=self.features
                )
            except self._rbd.ImageExists:
                # Another client has just made the image. The note must not claim that image.
                self._take_note(volume)
                raise
            self.finish(volume, size)

    def clone(self, source: str, target: str, size: int, held: int, beat: Beat) -> None:
        """See :meth:`bootvol.interfaces.ICloningBackend.clone`.

        If the source is deleted later, the library keeps its data until the last clone is gone.
        """
        if self._exists(target):
            raise BackendFailed(f"{self.called(target)} already exists.")
        with self._ours(source) as origin:
            if origin.size() < held:
                raise VolumeCutOff(self.called(source), held)
            depth = int(metadata(origin, DEPTH) or "0") + 1
            self.check_size(target, size)
            self.leave_note(target, source)
            snapshot = _SNAPSHOT + target
            self._drop_snapshot(origin, snapshot)
            origin.create_snap(snapshot)
            self._calls.clone(
                self.pool.ioctx, source, snapshot, self.pool.ioctx, target,
                features=self.features,
            )  # fmt: skip
            # From now on only the clone needs the snapshot. The snapshot goes with the clone.
            origin.remove_snap(snapshot)
        if depth > _DEEPEST:
            with self._opened(target) as made:
                made.resize(size)
                made.flatten(on_progress=beat)
            depth = 0
        self.finish(target, size, depth)

    def clone_image(self, location: Location, volume: str, size: int) -> int | None:
        """See :meth:`bootvol.interfaces.IImageCloningBackend.clone_image`."""
        if self._exists(volume):
            raise BackendFailed(f"{self.called(volume)} already exists.")
        ioctx = self.pool.of_images(location.fsid, location.pool)
        if ioctx is None:
            return None
        with closing(ioctx):
            held = self._clonable(ioctx, location)
            if held is None or held > size:
                return None
            self.check_size(volume, size)
            self.leave_note(volume, "")
            try:
                self._calls.clone(
                    ioctx, location.image, location.snapshot, self.pool.ioctx, volume,
                    features=self.features,
                )  # fmt: skip
            except self._rbd.ImageNotFound:
                # Another client has just deleted the image.
                self._take_note(volume)
                return None
        self.finish(volume, size, depth=1)
        return held

    def _clonable(self, ioctx: Ioctx, location: Location) -> int | None:
        """Return the size of an image in bytes; None if the image cannot be cloned."""
        try:
            with closing(
                self._rbd.Image(ioctx, location.image, snapshot=location.snapshot, read_only=True)
            ) as image:
                layering = image.features() & self._rbd.RBD_FEATURE_LAYERING
                return int(image.size()) if layering else None
        except self._rbd.ImageNotFound:
            return None
        except self._rbd.PermissionError:
            _log.warn(
                "backend {name} has no right to read images of pool {pool}",
                name=self.backend,
                pool=location.pool,
            )
            return None

    def finish(self, volume: str, size: int, depth: int | None = None) -> None:
        """Turn a new image into a volume.

        :param depth: the depth of a clone. A clone begins with all metadata of its source.
        """
        with self._opened(volume) as made:
            if made.size() != size:
                made.resize(size)
            if depth is not None:
                made.metadata_set(DEPTH, str(depth))
            made.metadata_set(SIZE, str(size))
            made.metadata_set(MARK, volume)
        self._take_note(volume)

    def delete(self, volume: str, beat: Beat) -> None:
        """See :meth:`bootvol.interfaces.IBlockBackend.delete`; leave foreign images alone.

        :raises InUse: if a client has the image open.
        """
        if self._note(volume) is None:
            with suppress(self._rbd.ImageNotFound), self._opened(volume, read_only=True) as image:
                if not is_marked(image, volume):
                    return
        self._remove(volume, beat)

    def _remove(self, volume: str, beat: Beat) -> None:
        """Remove a whole or half-made image of ours, with its note and its source's snapshot."""
        try:
            with alone(self.pool, volume) as renew:

                def beat_and_renew(*progress: object) -> int:
                    renew()
                    return beat(*progress)

                self._remove_image(volume, beat_and_renew)
        except Locked as error:
            raise InUse(f"Another client is removing {self.called(volume)}.") from error
        except self._rbd.OSError as error:
            if abs(error.errno) not in _IN_USE:
                raise
            raise InUse(f"{self.called(volume)} is in use.") from error
        source = self._note(volume)
        if source is not None:
            with suppress(self._rbd.ImageNotFound), self._opened(source or volume) as origin:
                self._drop_snapshot(origin, _SNAPSHOT + volume)
            self._take_note(volume)

    def _remove_image(self, volume: str, beat: Beat) -> None:
        reports: Beat | None = beat
        with suppress(self._rbd.ImageNotFound), self._opened(volume) as image:
            self._drop_snapshots(image)
            if is_quickly_removed(image, beat):
                reports = None
        try:
            # Remove even an image that cannot be opened: an earlier call may have broken off.
            self._calls.remove(self.pool.ioctx, volume, on_progress=reports)
        except self._rbd.ImageHasSnapshots as error:
            raise BackendFailed(
                f"{self.called(volume)} has snapshots that bootvol did not make."
            ) from error
        except self._rbd.ImageNotFound:
            if self._exists(volume):
                # The library says so in a full cluster, too, if the pool has no trash.
                raise NoSpace(f"The cluster is too full to delete {self.called(volume)}.") from None

    def sweep(self) -> None:
        """Remove the remains that a crash left of deleted images with clones.

        Without a crash the library removes them together with the last clone.
        """
        ioctx, rados = self.pool.ioctx, self.pool.bindings.rados
        with rados.ReadOpCtx() as operation:
            found, _ = ioctx.get_omap_keys(operation, "", 10_000)
            try:
                ioctx.operate_read_op(operation, TRASH)
            except rados.ObjectNotFound:
                return
            keys = [key for key, _ in found]
        for key in keys:
            number = key.removeprefix("id_")
            with suppress(*self.pool.errors):
                with closing(self._rbd.Image(ioctx, image_id=number)) as image:
                    if metadata(image, MARK) is None:
                        continue
                    self._drop_snapshots(image)
                    if list(image.list_snaps()):
                        continue
                self._calls.trash_remove(ioctx, number, force=True)

    # --- opening ---------------------------------------------------------------------------------

    def open_writer(self, volume: str) -> Image:
        """Open a volume for its one writer, and break the locks of other connections.

        The core opens no volume twice. So another lock's owner is a killed daemon, or a daemon
        that lost its claim and does not know yet. The writer would wait for a killed daemon's lock.
        """
        image = self._open_ours(volume, read_only=False)
        try:
            for lock in list(image.lock_get_owners()):
                if not self.pool.is_ours(lock["owner"]):
                    with suppress(self._rbd.ImageNotFound, self._rbd.ImageBusy):
                        image.lock_break(lock["mode"], lock["owner"])
        except BaseException:
            image.close()
            raise
        return image

    def open_reader(self, volume: str) -> Image:
        """Open a volume for reading."""
        return self._open_ours(volume, read_only=True)

    def check(self, volume: str) -> None:
        """Check that a volume exists.

        :raises BackendFailed: if the volume does not exist.
        """
        self._open_ours(volume, read_only=True).close()

    def check_unused(self, volume: str) -> None:
        """See :meth:`bootvol.interfaces.IGuardedBackend.check_unused`.

        :raises InUse: if another client of the cluster can write to the image.
        """
        watchers = self.watchers(volume)
        if not all(self.pool.is_ours(each) for each in watchers):
            raise InUse(f"A guest or another program has {self.called(volume)} open.")

    def is_half_made(self, volume: str) -> bool:
        """Return whether the making of a volume has begun, and not ended."""
        return self._note(volume) is not None

    def watchers(self, volume: str) -> list[str]:
        """Return the addresses of the clients that can write to a volume's image."""
        with closing(self._open_ours(volume, read_only=True)) as image:
            return [each["addr"] for each in image.watchers_list()]

    def called(self, volume: str) -> str:
        """Return a volume's name for errors."""
        return f"{volume} on backend {self.backend}"

    @contextmanager
    def _ours(self, volume: str) -> Iterator[Image]:
        with closing(self._open_ours(volume, read_only=False)) as image:
            yield image

    def _open_ours(self, volume: str, *, read_only: bool) -> Image:
        try:
            image: Image = self._rbd.Image(self.pool.ioctx, volume, read_only=read_only)
        except self._rbd.ImageNotFound as error:
            raise VolumeMissing(f"{self.called(volume)} does not exist.") from error
        try:
            if not is_marked(image, volume) or not is_whole(image):
                raise BackendFailed(f"{self.called(volume)} is not what was allocated.")
        except BaseException:
            image.close()
            raise
        return image

    @contextmanager
    def _opened(self, name: str, *, read_only: bool = False) -> Iterator[Image]:
        with closing(self._rbd.Image(self.pool.ioctx, name, read_only=read_only)) as image:
            yield image

    def _exists(self, name: str) -> bool:
        with suppress(self._rbd.ImageNotFound), self._opened(name, read_only=True):
            return True
        return False

    # --- details ---------------------------------------------------------------------------------

    @property
    def features(self) -> int:
        """The features of our images, as the library's sum of flags."""
        rbd = self._rbd
        return int(
            rbd.RBD_FEATURE_LAYERING
            | rbd.RBD_FEATURE_EXCLUSIVE_LOCK
            | rbd.RBD_FEATURE_OBJECT_MAP
            | rbd.RBD_FEATURE_FAST_DIFF
        )

    def check_size(self, volume: str, size: int) -> None:
        """Refuse a size that could never fit.

        :raises NoSpace: if the pool is smaller.
        """
        # Images and clones take space when they are written. Refuse only sizes that could never
        # fit.
        space = self.pool.space()
        if space is not None and size > space[0]:
            # Tenants must not learn how much space the pool has.
            _log.warn(
                "backend {name} cannot hold {volume}: {size} bytes are needed, and the pool can"
                " hold {most} bytes, {free} of them free",
                name=self.backend,
                volume=volume,
                size=size,
                most=space[0],
                free=space[1],
            )
            raise NoSpace(
                f"Backend {self.backend} has no room for {volume}: its pool is smaller.",
                never_fits=True,
            )

    def _drop_snapshots(self, image: Image) -> None:
        """Remove our snapshots that no clone needs."""
        for snapshot in list(image.list_snaps()):
            if snapshot["namespace"] == self._rbd.RBD_SNAP_NAMESPACE_TYPE_USER:
                if snapshot["name"].startswith(_SNAPSHOT):
                    image.remove_snap(snapshot["name"])
            elif snapshot["namespace"] == self._rbd.RBD_SNAP_NAMESPACE_TYPE_TRASH:
                image.set_snap_by_id(snapshot["id"])
                needed = any(True for _ in image.list_children2())
                image.set_snap(None)
                if not needed:
                    image.remove_snap_by_id(snapshot["id"])

    def _drop_snapshot(self, image: Image, name: str) -> None:
        if image.snap_exists(name):
            image.remove_snap(name)

    def _note(self, volume: str) -> str | None:
        """Return the note of a half-made volume: its source's name, or "" if the volume has none.

        Return None if the volume is not half-made.
        """
        try:
            return str(self._calls.pool_metadata_get(self.pool.ioctx, _NOTE + volume))
        except KeyError:
            return None

    def leave_note(self, volume: str, source: str) -> None:
        """Note that the making of a volume begins; :meth:`finish` ends the making.

        :param source: the source's name; empty if no snapshot was made of the source.
        """
        make_trash(self.pool)
        self._calls.pool_metadata_set(self.pool.ioctx, _NOTE + volume, source)

    def _take_note(self, volume: str) -> None:
        self._calls.pool_metadata_remove(self.pool.ioctx, _NOTE + volume)
