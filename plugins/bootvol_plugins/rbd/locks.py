"""The lock of changes to an image. Everything here blocks.

Ceph's library does not expect two clients that remove one image: the later client makes the header
of the removed image anew, or waits for ever.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final
from uuid import uuid4

from bootvol_plugins.rbd.calls import FULL
from bootvol_plugins.rbd.cluster import Pool

#: Prefix of the object that has the lock; the volume's name follows. The object goes with the
#: lock. After a crash, the next change of the volume takes both.
_OBJECT: Final = "bootvol.changing."
_LOCK: Final = "change"
#: Seconds until the lock of a dead client ends. A cluster counts a dead client as alive as long.
_DURATION: Final = 30
#: Seconds between two renewals.
_RENEWAL: Final = 10.0
#: ``LOCK_FLAG_MAY_RENEW`` of Ceph's ``cls_lock_types.h``.
_MAY_RENEW: Final = 1


class Locked(Exception):
    """Another client has the lock."""


@contextmanager
def alone(pool: Pool, volume: str) -> Iterator[Callable[[], None]]:
    """Hold the lock for the removal or the growth of a volume.

    A full cluster refuses new locks, but not removals, the only way to make room. So the removal
    goes on without the lock then.

    :returns: a function that renews the lock when needed; for the thread of the change.
    :raises Locked: if another client has the lock, or died less than 30 seconds ago.
    """
    ioctx, rados = pool.ioctx, pool.bindings.rados
    cookie = str(uuid4())
    renewed = 0.0

    def lock() -> None:
        nonlocal renewed
        renewed = time.monotonic()
        ioctx.lock_exclusive(_OBJECT + volume, _LOCK, cookie, "", _DURATION, _MAY_RENEW)

    def renew() -> None:
        if time.monotonic() - renewed > _RENEWAL:
            # Without the lock the removal goes on: most often no other client removes the image.
            with suppress(*pool.errors):
                lock()

    try:
        lock()
    except rados.ObjectBusy as error:
        raise Locked from error
    except rados.OSError as error:
        if abs(error.errno) not in FULL:
            raise
        yield renew
        return
    try:
        yield renew
    finally:
        with suppress(rados.ObjectNotFound):
            ioctx.remove_object(_OBJECT + volume)
