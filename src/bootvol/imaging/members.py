"""Decodes the members of a compressed image, one after the other.  This code blocks."""

from __future__ import annotations

from typing import Final

from bootvol.errors import ImageBomb, ImageCorrupt, ImportFailed, UnsupportedFormat
from bootvol.imaging.compression import FAILURES, HEAD, TAR, Compression, follows

#: The most bytes to give to a decoder, and to get back.  For larger pieces, the system allocates
#: and frees the memory each time, which costs as much again as zstd.
_PIECE_IN, _PIECE_OUT = 128 * 1024, 256 * 1024
#: Cost of each member beside its bytes, given as the output bytes that take the same time.
_MEMBER: Final = 1024
#: The most members with empty output in a stream.
_FREE_MEMBERS: Final = 1000
#: Bytes for the first call of a member's decoder: bytes behind a tiny member are copied again.
_FIRST_PIECE: Final = 1024


class Members:
    """The decoder of all members of an image.

    Each input replaces the one before.  So put :attr:`rest` before the bytes of the next input.
    Call the methods one at a time, from any thread.

    :param compression: format of the members.
    :param begun: false if perhaps no member comes, but padding or the end.
    :ivar foreign: whether foreign, uncompressed bytes follow the last member.
    """

    def __init__(self, compression: Compression, *, begun: bool = True) -> None:
        self.foreign = False
        self._kind = compression
        self._decoder = compression.make() if begun else _Ended()
        self._input = memoryview(b"")
        self._given = 0
        self._last = False
        self._piece = _PIECE_IN
        # The remaining credit for the cost of members, in bytes.
        self._credit = _FREE_MEMBERS * _MEMBER
        # Whether the decoder needs more input to give more output.
        self._hungry = True
        # Number of zeros since the last member.
        self._zeros = 0

    @property
    def ended(self) -> bool:
        """True if a member has ended, and no other one has begun."""
        return self._decoder.eof

    @property
    def rest(self) -> memoryview:
        """The bytes of the input that no decoder has received."""
        return self._input[self._given :]

    def give(self, data: memoryview, *, last: bool) -> None:
        """Set the next input.

        :param data: the input.  Nothing may change these bytes until the next input.
        :param last: whether no input follows.
        """
        self._input, self._given, self._last = data, 0, last

    def check_whole(self) -> None:
        """Check the end of the image.

        :raises bootvol.errors.ImageCorrupt: if the image is incomplete.
        """
        if not self._kind.is_whole(self._decoder):
            raise ImageCorrupt(f"The {self._kind.called} is incomplete.")

    def unpack(self, target: memoryview) -> int:
        """Fill ``target`` as far as the input goes.  Blocks.

        :returns: the number of decoded bytes.
        :raises bootvol.errors.ImportFailed: if the image is broken, or not supported.
        """
        done = 0
        try:
            while done < len(target):
                if self._decoder.eof and not self._next_member():
                    break
                piece = self._next_piece()
                if piece is None:
                    break
                most = min(len(target) - done, _PIECE_OUT)
                out = self._decoder.decompress(piece, most)
                self._hungry = len(out) < most
                if self._decoder.eof:
                    self._given -= len(self._decoder.unused_data)
                target[done : done + len(out)] = out
                done += len(out)
                self._credit += len(out)
        except FAILURES as error:
            raise _refusal(error) from error
        return done

    def _next_piece(self) -> memoryview | None:
        """Return the decoder's next input: empty if none is needed; None if no input is left."""
        if not self._hungry:
            return self._input[:0]
        piece = self._input[self._given : self._given + self._piece]
        self._given += len(piece)
        self._piece = min(2 * self._piece, _PIECE_IN)
        return piece or None

    def _next_member(self) -> bool:
        """Begin the next member, if one follows.  Zeros are padding."""
        while piece := bytes(self._input[self._given : self._given + _FIRST_PIECE]):
            zeros = len(piece) - len(piece.lstrip(b"\0"))
            self._given += zeros
            self._zeros += zeros
            if zeros < len(piece):
                return self._begins()
        if self._last:
            self._check_padding()
        return False

    def _begins(self) -> bool:
        """Begin a member, if one comes next.  Skip foreign bytes, and all bytes after them.

        :raises ImageCorrupt: if the format does not allow foreign bytes.
        :raises UnsupportedFormat: if another format begins here.
        """
        kind = self._kind
        head = bytes(self._input[self._given : self._given + HEAD])
        if self.foreign or not head.startswith(kind.magics):
            if not self.foreign and not self._last and len(head) < HEAD:
                # The next bytes may complete a magic.
                return False
            other = None if self.foreign or kind is TAR else follows(head)
            if other is not None:
                raise UnsupportedFormat(
                    f"The image is {kind.name} at first, and continues as {other}."
                )
            if not kind.passes_over:
                raise ImageCorrupt(
                    f"The {kind.called} cannot be unpacked: the bytes after one part are not"
                    f" {kind.name}."
                )
            self.foreign = True
            self._given = len(self._input)
            return False
        self._check_padding()
        self._credit -= _MEMBER
        if self._credit < 0:
            raise ImageBomb("The compressed image consists of too many almost empty parts.")
        self._decoder = kind.make()
        self._hungry = True
        self._piece = _FIRST_PIECE
        return True

    def _check_padding(self) -> None:
        padding = self._kind.padding
        if self._zeros % padding:
            raise ImageCorrupt(
                f"The compressed image cannot be unpacked: {self._zeros} zeros follow one part,"
                f" and no multiple of {padding}."
            )
        self._zeros = 0


def _refusal(error: Exception) -> ImportFailed:
    """Return the error to raise for a decoder's error."""
    if "emory" in str(error):
        return ImageBomb("Unpacking the image takes more memory than the limit.")
    if "ictionary" in str(error):
        # RFC 8878, 3.1.1.1.3 "Dictionary_ID".
        return UnsupportedFormat(
            "The image was compressed with a dictionary that the image does not contain."
        )
    return ImageCorrupt(f"The compressed image cannot be unpacked: {error}.")


class _Ended:
    """The decoder of a member that has ended."""

    eof = True
    unused_data = b""

    def decompress(self, data: bytes | memoryview, max_length: int) -> bytes:
        """Nothing follows."""
        raise EOFError
