"""The type of volumes without a type.  Cinder's clients expect that every volume has a type."""

from __future__ import annotations

from typing import Final

from bootvol.model import VolumeType
from bootvol.service.volume_types import NO_TYPE

#: The type has no row.
DEFAULT: Final = VolumeType(
    id=0,
    name=NO_TYPE,
    extra_specs={},
    uuid="6d6c1c5e-5f04-5c1a-9d0e-3c4a3f6f3f0b",
    description="Default Volume Type",
)
