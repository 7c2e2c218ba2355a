"""The directory of a ``file`` backend, opened anew for each call."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bootvol import devices
from bootvol.errors import BackendFailed, ConfigurationError, StoreUnusable, WrongStore
from bootvol_plugins.file_store import identify, identity_of, is_mount

#: The system's errors for a directory or a file system that is gone, for example a replaced export
#: of NFS, or an ended process of FUSE.
_GONE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ESTALE, errno.ENOTCONN})
#: The system's errors of a volume alone, or of the whole directory.
_OF_STORES: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO})


class Folder:
    """The directory, which must stay one and the same store.  All methods block.

    :param name: name of the backend.
    :param directory: an existing folder.
    :param mounted: True if the folder must be a mount point with a mounted disk.
    """

    def __init__(self, name: str, directory: Path, mounted: bool) -> None:
        self._name = name
        self._directory = directory
        self._mounted = mounted
        self._expected: str | None = None
        #: Whether the directory has failed since its identity was last told.
        self._unusable = False

    def identity(self) -> str:
        """Return the identity, and give the directory one if it has none.

        :raises BackendFailed: if the directory cannot be used.
        """
        with self.open(f"Backend {self._name} cannot be told from others") as folder:
            if self._unusable:
                self._check_usable()
                self._unusable = False
            return identity_of(folder) or identify(folder)

    def expect(self, identity: str) -> None:
        """Use only the store with this identity from now on.

        :raises ConfigurationError: if the directory is another store, or cannot be used.
        """
        self._expected = identity
        try:
            with self._open_folder() as folder:
                found = identity_of(folder)
        except (OSError, BackendFailed) as error:
            raise ConfigurationError(
                f"backend {self._name!r}: directory {self._directory} cannot be used: {error}"
            ) from error
        if found != identity:
            has = f"is the store {found}" if found else "is no store yet"
            raise ConfigurationError(
                f"backend {self._name!r}: the volumes lie in the store {identity}, but"
                f" {self._directory} {has}. Mount the right disk there, or name the right"
                f" directory. To continue with the present store, without those volumes: bootvol db"
                f" forget-store {self._name}"
            )

    @contextmanager
    def open(self, what: str) -> Iterator[int]:
        """Open the directory for one call, so that its disk may go and come back between calls.

        :param what: the beginning of the message of errors: see :meth:`failures`.
        :raises WrongStore: if the directory is gone, unmounted, or another store.
        """
        with self.failures(what), self._open_folder() as folder:
            with self._reached():
                found = None if self._expected is None else identity_of(folder)
            if found != self._expected:
                raise WrongStore(
                    f"Backend {self._name} has another directory than the directory with its"
                    " volumes."
                )
            yield folder

    @contextmanager
    def _open_folder(self) -> Iterator[int]:
        with self._reached():
            folder = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if self._mounted and not is_mount(folder):
                raise WrongStore(f"Nothing is mounted on the directory of backend {self._name}.")
            yield folder
        finally:
            os.close(folder)

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in _GONE:
                raise
            raise WrongStore(f"The directory of backend {self._name} is gone.") from error

    @contextmanager
    def failures(self, what: str) -> Iterator[None]:
        """Turn the system's errors into the contract's: see :func:`bootvol.devices.failures`.

        :raises StoreUnusable: if the whole directory fails, and not only the volume.
        """
        with devices.failures(what):
            try:
                yield
            except OSError as error:
                if error.errno in _OF_STORES:
                    self._check_usable()
                raise

    def _check_usable(self) -> None:
        """Check that the directory takes changes; a disk that fails may tell so only then.

        :raises StoreUnusable: if the directory is read-only, forbidden or broken.
        """
        try:
            with self._open_folder() as folder:
                os.utime(folder)
                os.fsync(folder)
                if not os.access(".", os.W_OK | os.X_OK, dir_fd=folder, effective_ids=True):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as error:
            if error.errno in _OF_STORES:
                self._unusable = True
                raise StoreUnusable(
                    f"The directory of backend {self._name} cannot be used: {error.strerror}."
                ) from error
