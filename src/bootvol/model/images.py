"""Images of sources, with their digests and extents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

#: The most characters of an image's properties, with their names.  A list may have 1,000 volumes.
LONGEST_PROPERTIES: Final = 16 * 1024


@attrs.frozen
class Digest:
    """A digest in lower-case hex.

    :ivar algorithm: name of the algorithm.  A digest from a source uses an algorithm of
        :mod:`hashlib`.
    :ivar value: the digest in lower-case hex.
    """

    algorithm: str
    value: str


@attrs.frozen
class Extent:
    """A run of consecutive bytes of a volume or an image.

    :ivar length: bytes, at least 1.
    :ivar zero: whether all of the bytes read as zeros.  If False, the bytes may have any value.
    """

    length: int
    zero: bool


@attrs.frozen
class Image:
    """An image of a source, as the source described the image when the core asked.

    :ivar format: ``raw``, ``qcow2`` and so on; None if the source does not state the format.  The
        image's own bytes then show the format.
    :ivar size_bytes: number of bytes that the source sends; None if the source does not know.
    :ivar min_disk_gib: the smallest volume that the maker of the image allows.
    :ivar digest: digest of the bytes that the source sends, if the source states one.
    :ivar validator: validator of the image's stream, if the source knows the validator without
        opening a stream.
    :ivar disk_bytes: length of the disk inside a container, if the source knows this length.
    :ivar changed_at: time of the last change of the image's bytes, in seconds since 1970; None if
        unknown.
    :ivar properties: further properties that the source states, for the volumes of the image, with
        at most :data:`LONGEST_PROPERTIES` characters.
    """

    id: str
    source: str
    name: str
    format: str | None = None
    size_bytes: int | None = None
    min_disk_gib: int = 0
    digest: Digest | None = None
    validator: str | None = None
    disk_bytes: int | None = None
    changed_at: float | None = None
    properties: Mapping[str, str] = attrs.field(factory=dict, hash=False)
