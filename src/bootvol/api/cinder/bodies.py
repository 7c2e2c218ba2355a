"""Models of request bodies in Cinder's dialect."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal
from uuid import UUID

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    Field,
    RootModel,
    ValidationInfo,
)

from bootvol.api.bodies import BODY, Text, absent_if_empty
from bootvol.api.cinder.booleans import truth
from bootvol.api.cinder.words import refusal, shown
from bootvol.jsons import JsonObject
from bootvol.model import LARGEST_ID

_KEY: Final = "^[a-zA-Z0-9-_:. /]{1,255}$"
Metadata = dict[Annotated[Text, Field(pattern=_KEY)], Text]


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


Flag = Annotated[bool, BeforeValidator(_flag, bool | str)]


def _not_multiattach(value: object) -> None:
    if _flag(value) not in (None, False):
        raise ValueError("Invalid input received: a volume is for one server at a time")


def _size(value: object) -> int | None:
    """Return a size in GiB from a number or from digits."""
    if value is None:
        return None
    if isinstance(value, str):
        if not re.fullmatch("[0-9]+", value):
            raise ValueError(refusal("size", value, f"{shown(value)} does not match '^[0-9]+$'"))
        # Python refuses to convert very long numbers.
        value = int(value[:20])
    if not isinstance(value, int) or isinstance(value, bool):
        why = f"{shown(value)} is not of type 'integer', 'string', 'null'"
        raise ValueError(refusal("size", value, why))
    if value < 1:
        raise ValueError(refusal("size", value, f"{value} is less than the minimum of 1"))
    if value > LARGEST_ID:
        why = f"{shown(value)} is greater than the maximum of {LARGEST_ID}"
        raise ValueError(refusal("size", value, why))
    return value


def _uuid(value: object, info: ValidationInfo) -> object:
    try:
        return value if value is None else str(UUID(str(value)))
    except ValueError:
        why = f"{shown(value)} is not valid under any of the given schemas"
        raise ValueError(refusal(info.field_name, value, why)) from None


_Uuid = Annotated[str | None, BeforeValidator(_uuid, str | None)]
Size = Annotated[int | None, BeforeValidator(_size, int | str | None)]


class CreateVolume(BaseModel):
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


class _Change(BaseModel):
    """Null removes a value; absent members change nothing."""

    model_config = BODY

    display_name: Name = None
    display_description: Description = None
    metadata: Metadata | None = None

    @property
    def values(self) -> JsonObject:
        """The changed values, by their names in the core."""
        ignored = {"metadata"} if self.metadata is None else set()
        return self.model_dump(include=self.model_fields_set - ignored)


class ChangeVolume(_Change):
    """The object ``volume`` of an update."""


class ChangeSnapshot(_Change):
    """The object ``snapshot`` of an update."""


class CreateSnapshot(BaseModel):
    """The object ``snapshot`` of a create request."""

    model_config = BODY

    volume_id: Text | None = None
    name: Name = None
    description: Description = None
    force: Flag | None = None
    metadata: Metadata | None = None


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
        Literal[True] | None,
        BeforeValidator(_flag, bool | str | None),
        Field(validation_alias="os-volume-type-access:is_public"),
    ] = None


class ChangeType(BaseModel):
    """The object ``volume_type`` of an update."""

    model_config = BODY

    name: Annotated[Text, Field(min_length=1)] | None = None
    description: Text | None = None
    is_public: Annotated[Literal[True] | None, BeforeValidator(_flag, bool | str | None)] = None

    @property
    def values(self) -> JsonObject:
        """The changed values."""
        known = {"name", "description"}
        ignored = {"name"} if self.name is None else set()
        return self.model_dump(include=(self.model_fields_set & known) - ignored)


class Specs(RootModel[Metadata]):
    """The extra specs of a type."""
