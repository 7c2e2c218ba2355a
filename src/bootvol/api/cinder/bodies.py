"""Models of request bodies in Cinder's dialect."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Final
from uuid import UUID

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    RootModel,
    ValidationInfo,
    model_validator,
)

from bootvol.api.bodies import BODY, Text, absent_if_empty
from bootvol.api.cinder.booleans import truth
from bootvol.api.cinder.words import Versioned, refusal, shown
from bootvol.jsons import JsonObject
from bootvol.model import LARGEST_ID

#: Null means absent for every optional key. Unknown keys are refused.
STRICT: Final = ConfigDict(**{**BODY, "extra": "forbid"})
_KEY: Final = "^[a-zA-Z0-9-_:. /]{1,255}$"
Metadata = dict[Annotated[Text, Field(pattern=_KEY)], Text]


#: The minor version from which bodies are strict, and from which snapshots need no force.
STRICT_SINCE: Final = 53
FORCE_UNTIL: Final = 66

#: A name or description, in both spellings.
Name = Annotated[
    Text | None,
    Field(validation_alias=AliasChoices("name", "display_name")),
    AfterValidator(lambda text: text and text.strip()),
]
Description = Annotated[
    Text | None, Field(validation_alias=AliasChoices("description", "display_description"))
]


def _flag(value: object) -> object:
    meant = truth(value) if isinstance(value, str) else None
    return value if meant is None else meant


def _named_flag(value: object, info: ValidationInfo) -> object:
    meant = _flag(value)
    if meant is not None and not isinstance(meant, bool):
        why = f"{shown(value)} is not one of {_FLAGS}"
        raise ValueError(refusal(info.field_name, value, why))
    return meant


#: Cinder's list of the values of a flag, in its own order.
_FLAGS: Final = (
    "[True, 'True', 'TRUE', 'true', '1', 'ON', 'On', 'on', 'YES', 'Yes', 'yes', 'y', 't',"
    " False, 'False', 'FALSE', 'false', '0', 'OFF', 'Off', 'off', 'NO', 'No', 'no', 'n', 'f']"
)
Flag = Annotated[bool, BeforeValidator(_named_flag, bool | str)]


def _not_multiattach(value: object) -> None:
    if _flag(value) not in (None, False):
        raise ValueError("Invalid input received: a volume is for one server at a time")


def _size(value: object, info: ValidationInfo) -> int | None:
    """Return a size in GiB from a number or from digits."""
    if value is None:
        return None
    name = info.field_name
    if isinstance(value, str):
        if not re.fullmatch("[0-9]+", value):
            raise ValueError(refusal(name, value, f"{shown(value)} does not match '^[0-9]+$'"))
        # Python refuses to convert very long numbers.
        value = int(value[:20])
    if not isinstance(value, int) or isinstance(value, bool):
        why = f"{shown(value)} is not of type 'integer', 'string', 'null'"
        raise ValueError(refusal(name, value, why))
    if value < 1:
        raise ValueError(refusal(name, value, f"{value} is less than the minimum of 1"))
    if value > LARGEST_ID:
        why = f"{shown(value)} is greater than the maximum of {LARGEST_ID}"
        raise ValueError(refusal(name, value, why))
    return value


def _uuid(value: object, info: ValidationInfo) -> object:
    try:
        return value if value is None else str(UUID(str(value)))
    except ValueError:
        why = f"{shown(value)} is not valid under any of the given schemas"
        raise ValueError(refusal(info.field_name, value, why)) from None


def _not_empty(entity: str) -> Callable[[object], object]:
    """Return a validator that refuses an object without members."""

    def check(value: object) -> object:
        if value == {}:
            why = f"{value} is not valid under any of the given schemas"
            raise ValueError(refusal(entity, value, why))
        return value

    return check


def _forced(value: object, info: ValidationInfo) -> None:
    if not _named_flag(value, info):
        # Cinder's own words, with its spelling.
        raise ValueError(
            "Since microversion 3.66 the 'force' flag is invalid for this request.  For backward"
            " compatability, however, when the 'force' flag is passed with a value evaluating to"
            " True, it is silently ignored."
        )


_Uuid = Annotated[str | None, BeforeValidator(_uuid, str | None)]
RequiredUuid = Annotated[str, BeforeValidator(_uuid, str)]
Size = Annotated[int | None, BeforeValidator(_size, int | str | None)]


class CreateVolume(Versioned):
    """The object ``volume`` of a create request.  Null means the same as a missing member."""

    model_config = BODY

    size: Size = None
    name: Name = None
    description: Description = None
    volume_type: Annotated[Text | None, BeforeValidator(absent_if_empty)] = None
    metadata: Metadata | None = None
    snapshot_id: _Uuid = None
    image: Annotated[
        Annotated[str, Field(max_length=2048)] | None,
        Field(validation_alias=AliasChoices("imageRef", "image_id")),
    ] = None
    availability_zone: Annotated[Text, Field(min_length=1)] | None = None
    source_volid: _Uuid = None
    backup_id: _Uuid = None
    group_id: Text | None = None
    consistencygroup_id: _Uuid = None
    multiattach: Annotated[None, BeforeValidator(_not_multiattach, bool | str | None)] = None

    @classmethod
    def at(cls, minor: int) -> type[CreateVolume]:
        """Return the rules of a minor version: 3.53 and later refuse unknown members."""
        return _StrictCreateVolume if minor >= STRICT_SINCE else CreateVolume


class _StrictCreateVolume(CreateVolume):
    model_config = STRICT


class _Change(Versioned):
    """Null removes a value; absent members change nothing."""

    model_config = STRICT

    display_name: Name = None
    display_description: Description = None

    @property
    def values(self) -> JsonObject:
        """The changed values, by their names in the core."""
        return self.model_dump(include=set(self.model_fields_set))


class ChangeVolume(_Change):
    """The object ``volume`` of an update."""

    metadata: Metadata | None = None

    @property
    def values(self) -> JsonObject:
        """The changed values, by their names in the core."""
        ignored = {"metadata"} if self.metadata is None else set()
        return self.model_dump(include=self.model_fields_set - ignored)

    @classmethod
    def at(cls, minor: int) -> type[ChangeVolume]:
        """Return the rules of a minor version: 3.53 and later require a member."""
        return _StrictChangeVolume if minor >= STRICT_SINCE else ChangeVolume


class _StrictChangeVolume(ChangeVolume):
    _some = model_validator(mode="before")(_not_empty("volume"))


class ChangeSnapshot(_Change):
    """The object ``snapshot`` of an update."""

    _some = model_validator(mode="before")(_not_empty("snapshot"))


class CreateSnapshot(Versioned):
    """The object ``snapshot`` of a create request."""

    model_config = STRICT

    volume_id: _Uuid
    name: Name = None
    description: Description = None
    force: Flag | None = None
    metadata: Metadata | None = None

    @property
    def forces(self) -> bool:
        """True if the snapshot may be of a volume in use."""
        return bool(self.force)

    @classmethod
    def at(cls, minor: int) -> type[CreateSnapshot]:
        """Return the rules of a minor version: 3.66 and later need no force."""
        return _FreeCreateSnapshot if minor >= FORCE_UNTIL else CreateSnapshot


class _FreeCreateSnapshot(CreateSnapshot):
    force: Annotated[None, BeforeValidator(_forced, bool | str | None)] = None

    @property
    def forces(self) -> bool:
        """True if the snapshot may be of a volume in use."""
        return True


class MetadataItems(RootModel[Metadata]):
    """The object ``metadata``: all or some items."""


class MetadataItem(RootModel[Metadata]):
    """The object ``meta``: one item."""


class CreateType(BaseModel):
    """The object ``volume_type`` of a create request."""

    model_config = BODY

    name: Annotated[Text, Field(min_length=1)]
    description: Text | None = None
    extra_specs: Metadata | None = None
    is_public: Annotated[
        bool | None,
        BeforeValidator(_flag, bool | str | None),
        Field(validation_alias="os-volume-type-access:is_public"),
    ] = None


class ChangeType(BaseModel):
    """The object ``volume_type`` of an update."""

    model_config = BODY

    name: Annotated[Text, Field(min_length=1)] | None = None
    description: Text | None = None
    is_public: Annotated[bool | None, BeforeValidator(_flag, bool | str | None)] = None

    @property
    def values(self) -> JsonObject:
        """The changed values."""
        ignored = {each for each in ("name", "is_public") if getattr(self, each) is None}
        return self.model_dump(include=self.model_fields_set - ignored)


class Specs(RootModel[Metadata]):
    """The extra specs of a type."""
