"""Disks in the stores of backends, which bootvol may take over."""

from __future__ import annotations

from collections.abc import Mapping

import attrs


@attrs.frozen
class StoredDisk:
    """A disk in a backend's store.

    :ivar place: the disk's name in the store.
    :ivar size: size in bytes.
    :ivar volume: the name of bootvol's volume or snapshot that the disk is; None for a disk that
        bootvol did not make or take over.
    :ivar obstacle: the reason why bootvol cannot take the disk over, for people; None if bootvol
        can.
    :ivar origin: the place of the disk that this one is a snapshot of; None if the backend knows
        of no such disk.
    """

    place: str
    size: int
    volume: str | None = None
    obstacle: str | None = None
    origin: str | None = None


@attrs.frozen
class Adoption:
    """An operator's request to take a disk over as a volume.

    :ivar backend: the backend's name.
    :ivar host: the host whose daemons alone reach the disk; empty if every host's daemons do.
    :ivar place: the disk's name in the backend's store.
    :ivar volume_type: name of the volume's type; None for no type.
    """

    backend: str
    host: str
    place: str
    volume_type: str | None = None
    display_name: str | None = None
    display_description: str | None = None
    metadata: Mapping[str, str] = attrs.Factory(dict)
    bootable: bool = False
