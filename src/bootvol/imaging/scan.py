"""The middle stage of the pipeline: inspects each chunk, hashes the chunk, and finds its zeros."""

from __future__ import annotations

import attrs

from bootvol.errors import ImageTooLarge, ImageUnidentified
from bootvol.imaging.blocks import END, Chunk, Run, runs, up_to_block
from bootvol.imaging.digest import Digester
from bootvol.imaging.inspect import FOOTER, Inspection, Uninspected
from bootvol.model import ENCRYPTED, Image


class Scan:
    """The scan of one image, from its first byte on, in order.

    The calls may run in threads, one at a time.

    :param image: the source's description of the image.
    :param volume_size: size of the volume in bytes.
    :param block_size: block size of the volume's backend in bytes.
    :param container: known format of the container, if the container itself is copied.
    :param strict: whether to refuse an image without any signature of a disk.
    :param inspected: false if the stream is no image; then any bytes pass.
    :ivar digester: the digest of the scanned bytes.
    :ivar is_short: whether the whole image is shorter than its first bytes state.
    :ivar size: size of the decompressed image in bytes, if known.
    """

    def __init__(
        self,
        image: Image,
        volume_size: int,
        block_size: int,
        container: str | None,
        *,
        strict: bool,
        inspected: bool,
    ) -> None:
        kind = Inspection if inspected else Uninspected
        self._inspection = kind(container or image.format)
        self._volume_size = volume_size
        self._block = block_size
        self._container = container
        self._strict = strict
        self.digester = Digester(image.digest)
        self.size: int | None = None
        self.is_short = False

    @property
    def tells_nothing(self) -> bool:
        """True if the scanned bytes have no signature of a disk."""
        return self._inspection.tells_nothing and not self.is_encrypted

    @property
    def is_encrypted(self) -> bool:
        """True if the scanned bytes begin a disk encrypted as a whole."""
        return self._inspection.is_encrypted

    def chunk(self, chunk: Chunk) -> Chunk:
        """Scan a chunk, and pad its last bytes to whole blocks.

        :returns: the chunk with its runs, and with the digest up to its end.
        :raises bootvol.errors.ImportFailed: as :meth:`data`.
        """
        if chunk.hole:
            self.zeros(chunk.length)
            found = [Run(0, whole, zero=True)] if (whole := self._span(chunk)[1]) else []
        else:
            self.data(chunk.offset, chunk.buffer[: chunk.length])
            found = list(runs(self._padded(chunk)))
        return attrs.evolve(chunk, runs=tuple(found), digest=self.digester.so_far())

    def data(self, offset: int, data: memoryview) -> None:
        """Scan the next bytes of the image.

        :param offset: offset of the bytes in the image.
        :raises bootvol.errors.ImportFailed: if the image is refused, or cannot fit.
        :raises ContainerDetected: if the image is an unexpected container.
        """
        if offset:
            self._inspection.more(data)
        else:
            self._inspection.begin(data)
        self._inspection.check_packed(self._container)
        if not offset and self.size is not None:
            # Check before the write, and not earlier: a container may be larger than its disk.
            self.check_may_fit(self.size)
        self._check_identified()
        self.digester.update(data)

    def zeros(self, length: int) -> None:
        """Scan zeros that were not read."""
        self._inspection.skip(length)
        self.digester.skip(length)

    def empty(self) -> None:
        """Scan an image without any byte.

        :raises bootvol.errors.NotADisk: unless the scan accepts all bytes.
        """
        self._inspection.begin(END.buffer)

    def finish(self, length: int) -> None:
        """Check the whole image.

        :param length: length of the image in bytes.
        :raises bootvol.errors.ImportFailed: if the image is refused, or does not fit.
        :raises ContainerDetected: if the image is an unexpected container.
        """
        self._inspection.finish()
        self._inspection.check_packed(self._container)
        self._check_identified()
        self._check_fits(length)
        self.is_short = length < self._inspection.needed

    def check_may_fit(self, length: int) -> None:
        """Check that an image of at least ``length`` bytes can fit.

        Only its last bytes, the footer, identify a fixed-size vhd.  The footer does not belong to
        the disk.  So the footer may lie behind the volume's end, until the whole image has come.

        :raises bootvol.errors.ImageTooLarge: if the image cannot fit.
        """
        footed = self._container is None and self._inspection.may_have_footer
        whole = self.size in (None, self._volume_size + FOOTER)
        self._check_fits(length - FOOTER if footed and whole else length)

    def _padded(self, chunk: Chunk) -> memoryview:
        """Return the chunk, padded to whole blocks.  Only the image's last chunk needs padding."""
        length, end = self._span(chunk)
        chunk.buffer[length:end] = bytes(end - length)
        return chunk.buffer[:end]

    def _span(self, chunk: Chunk) -> tuple[int, int]:
        """Return the bytes of a chunk that go to the volume: their number, and the padded number.

        The padded number is a whole number of blocks.  Bytes behind the volume's end, a footer, are
        left out.
        """
        length = max(0, min(chunk.length, self._volume_size - chunk.offset))
        return length, up_to_block(length, self._block)

    def _check_identified(self) -> None:
        if self._strict and self.is_encrypted:
            raise ImageUnidentified(ENCRYPTED.message)
        if self._strict and self.tells_nothing:
            raise ImageUnidentified

    def _check_fits(self, length: int) -> None:
        if length > self._volume_size:
            raise ImageTooLarge(
                f"The image has at least {length} bytes; the volume has room for"
                f" {self._volume_size}."
            )
