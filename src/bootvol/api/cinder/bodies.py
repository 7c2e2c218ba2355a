"""Models of request bodies in Cinder's dialect."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import AliasChoices, BaseModel, BeforeValidator, Field, RootModel

from bootvol.api.bodies import BODY, Refused, Size, Text, absent_if_empty
from bootvol.jsons import JsonObject

_KEY: Final = "^[a-zA-Z0-9-_:. /]{1,255}$"
Metadata = dict[Annotated[Text, Field(pattern=_KEY)], Text]


#: A name or description, in both spellings.
Name = Annotated[Text | None, Field(validation_alias=AliasChoices("name", "display_name"))]
Description = Annotated[
    Text | None, Field(validation_alias=AliasChoices("description", "display_description"))
]


def _flag(value: object) -> object:
    if isinstance(value, str) and value.strip().lower() in {"1", "t", "true", "on", "y", "yes"}:
        return True
    if isinstance(value, str) and value.strip().lower() in {"0", "f", "false", "off", "n", "no"}:
        return False
    return value


Flag = Annotated[bool, BeforeValidator(_flag, bool | str)]


def _not_multiattach(value: object) -> None:
    if _flag(value) not in (None, False):
        raise ValueError("Invalid input received: a volume is for one server at a time")


class CreateVolume(BaseModel):
    """The object ``volume`` of a create request.  Null means the same as a missing member."""

    model_config = BODY

    size: Size | None = None
    name: Name = None
    description: Description = None
    volume_type: Annotated[Text | None, BeforeValidator(absent_if_empty)] = None
    metadata: Metadata | None = None
    snapshot_id: Text | None = None
    image: Annotated[
        Annotated[str, Field(min_length=1, max_length=2048)] | None,
        Field(validation_alias=AliasChoices("imageRef", "image_id")),
    ] = None
    availability_zone: Text | None = None
    source_volid: Refused = None
    backup_id: Refused = None
    consistencygroup_id: Refused = None
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
