"""Gathers the bytes of a compressed image into sections, so that parts are worth their decoding.

An image may have a hundred thousand places to cut in one MiB.  This module passes on few of them.
"""

from __future__ import annotations

import attrs

from bootvol.imaging.splitting import Content, Mark, Needs, Splitter

#: A part has so many compressed bytes, or the second number if it has so many decoded bytes.
#: Smaller parts would cost more than their decoding.
_PACKED, _LEAST_PACKED, _CONTENT = 1024 * 1024, 4096, 1024 * 1024
#: Pieces below so many bytes are copied together, up to the second number: a view takes more memory
#: than a tiny piece.
_SMALL, _JOINED = 4096, 64 * 1024


@attrs.define
class Section:
    """Bytes of one part of an image.

    :ivar pieces: the bytes: views of the input, and copies.
    :ivar needs: bytes that the decoder of the part takes, as far as known.
    :ivar ends: whether the part ends with these bytes.
    """

    pieces: list[memoryview | bytearray] = attrs.Factory(list)
    needs: int = 0
    ends: bool = False

    def add(self, piece: memoryview) -> None:
        """Add bytes at the end."""
        last = self.pieces[-1] if self.pieces else None
        if len(piece) >= _SMALL:
            self.pieces.append(piece)
        elif isinstance(last, bytearray) and len(last) < _JOINED:
            last += piece
        else:
            self.pieces.append(bytearray(piece))


class Sections:
    """Gathers the bytes of an image.  Call :meth:`split` from any thread, one call at a time.

    :param splitter: the places to cut.
    """

    def __init__(self, splitter: Splitter) -> None:
        self._splitter = splitter
        # Compressed and decoded bytes of the part so far.
        self._packed = self._content = 0

    @property
    def within(self) -> bool:
        """True if the last place was within a member."""
        return self._splitter.within

    def split(self, data: memoryview) -> list[Section]:
        """Return the sections of the next bytes.  Blocks for a while if the image has tiny members.

        :raises ImageCorrupt: if the image is broken.
        """
        section = Section()
        sections = [section]
        for piece in self._splitter.split(data):
            if isinstance(piece, memoryview):
                section.add(piece)
                self._packed += len(piece)
            elif isinstance(piece, Needs):
                section.needs = max(section.needs, piece)
            elif isinstance(piece, Content):
                self._content += piece
            elif isinstance(piece, Mark) and self._is_large:
                section.ends = True
                section = Section()
                sections.append(section)
                self._packed = self._content = 0
        return [each for each in sections if each.pieces or each.ends]

    @property
    def _is_large(self) -> bool:
        return self._packed >= (_LEAST_PACKED if self._content >= _CONTENT else _PACKED)
