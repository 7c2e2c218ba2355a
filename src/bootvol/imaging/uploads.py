"""Looks at the bytes of an upload as they pass: their digests, and whether they are an image."""

from __future__ import annotations

import hashlib
from typing import Final

from bootvol.errors import NotADisk
from bootvol.imaging.compression import compression_of
from bootvol.imaging.inspect import HEAD, Inspection, check_stated
from bootvol.model import StoredBytes

#: The least number of bytes of the first piece, unless the image is shorter.
FIRST: Final = HEAD


class PassingImage:
    """The inspection of an upload.  The methods block for as long as hashing a piece takes.

    No volume can be made of an image that :meth:`take` or :meth:`finish` refuses.  An image in a
    compression or an archive is not looked into: only an import unpacks the image.

    :param stated: the stated format.
    :param packed: whether the image may be in a compression or an archive.
    :raises bootvol.errors.UnsupportedFormat: if the format is not supported.
    """

    def __init__(self, stated: str, *, packed: bool = True) -> None:
        check_stated(stated)
        self._packed = packed
        self._inspection: Inspection | None = Inspection(stated)
        self._size = 0
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._sha512 = hashlib.sha512()

    def take(self, data: memoryview) -> None:
        """Take the next bytes.

        :param data: at least :data:`FIRST` bytes of the beginning, or all of a shorter image.
        :raises bootvol.errors.ImportFailed: if the bytes cannot be those of an image.
        """
        if not self._size and compression_of(bytes(data[:HEAD])) is not None:
            if not self._packed:
                raise NotADisk("The data begin like a compressed file, not like a disk.")
            self._inspection = None
        if self._inspection is not None:
            if self._size:
                self._inspection.more(data)
            else:
                self._inspection.begin(data)
        self._size += len(data)
        self._md5.update(data)
        self._sha512.update(data)

    def finish(self) -> StoredBytes:
        """Return the facts about all bytes.

        :raises bootvol.errors.ImportFailed: if the bytes are not an image.
        """
        if not self._size:
            self.take(memoryview(b""))
        if self._inspection is not None:
            self._inspection.finish()
        return StoredBytes(
            self._size, self._md5.hexdigest(), self._sha512.hexdigest(), self._disk_bytes()
        )

    def _disk_bytes(self) -> int | None:
        if self._inspection is None:
            return None
        if self._inspection.container is None:
            return self._size
        return self._inspection.disk_size or None
