"""Makes an image larger. Everything here blocks."""

from __future__ import annotations

from contextlib import closing

from bootvol.errors import BackendFailed, VolumeMissing
from bootvol_plugins.rbd.images import Images, InUse
from bootvol_plugins.rbd.locks import Locked, alone
from bootvol_plugins.rbd.marks import SIZE, is_marked, is_whole, metadata


def grow(images: Images, volume: str, size: int) -> None:
    """See :meth:`bootvol.interfaces.IGrowingBackend.grow`.

    :param size: the new size in bytes.
    :raises InUse: if another client changes the image.
    """
    called, rbd = images.called(volume), images.pool.bindings.rbd
    images.check_size(volume, size)
    try:
        with (
            alone(images.pool, volume),
            closing(rbd.Image(images.pool.ioctx, volume)) as image,
        ):
            if not is_marked(image, volume) or not is_whole(image):
                raise BackendFailed(f"{called} is not what was allocated.")
            if image.size() < size:
                image.resize(size)
            if int(metadata(image, SIZE) or 0) < size:
                image.metadata_set(SIZE, str(size))
    except rbd.ImageNotFound as error:
        raise VolumeMissing(f"{called} does not exist.") from error
    except Locked as error:
        raise InUse(f"Another client changes {called}.") from error
