"""Locations of Glance's images in a Ceph cluster."""

from __future__ import annotations

from typing import Self
from urllib.parse import unquote

import attrs

_SCHEME = "rbd://"


@attrs.frozen
class Location:
    """A snapshot of an image.

    :ivar fsid: the FSID of the cluster.
    """

    fsid: str
    pool: str
    image: str
    snapshot: str

    @classmethod
    def parse(cls, location: str) -> Self | None:
        """Parse a URL; return None if the URL is of another kind."""
        if not location.startswith(_SCHEME):
            return None
        try:
            parts = [unquote(part, errors="strict") for part in location[len(_SCHEME) :].split("/")]
        except UnicodeDecodeError:
            return None
        if len(parts) != 4 or not all(part and part.isprintable() for part in parts):
            return None
        return cls(*parts)
