"""Data that are to take the place of a volume's data."""

from __future__ import annotations

import attrs

from bootvol.model.imports import Checkpoint


@attrs.frozen
class Replacement:
    """Data in the making that take the place of a volume's data when they are complete.

    Until then the volume has its former data, whatever happens.

    :ivar name: name on the backend, like that of a volume.
    :ivar backend: name of the backend, perhaps another one than the volume's.
    :ivar host: the host whose daemons alone reach the data; empty if every host's daemons do.
    :ivar snapshot_id: the snapshot whose data come; None for the volume's own data.
    :ivar retypes: whether the volume gets another type with the data.
    :ivar volume_type: name of this type; None for no type.
    :ivar checkpoint: the part of the data that is safe on the backend; None without one.
    """

    volume_id: int
    name: str
    backend: str
    host: str = ""
    snapshot_id: int | None = None
    retypes: bool = False
    volume_type: str | None = None
    checkpoint: Checkpoint | None = None
