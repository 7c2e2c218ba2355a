"""Models of request bodies in Nova's dialect."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import AliasChoices, BaseModel, BeforeValidator, Field

from bootvol.api.bodies import (
    BODY,
    Model,
    Named,
    Reference,
    Refused,
    Size,
    Text,
    absent_if_empty,
    named,
    read_part,
    shown,
)
from bootvol.errors import MissingEntity
from bootvol.model import NewSnapshot, NewVolume

#: These objects may be empty: an action without parameters and a change of nothing are valid. None
#: stands for the body itself.
_MAY_BE_EMPTY: Final = frozenset({"quota_set", "extra_specs", "metadata", None})


class CreateVolume(BaseModel):
    """The object ``volume`` of a create request (specification, section 5.5)."""

    model_config = BODY

    size: Size | None = None
    display_name: Text | None = None
    display_description: Text | None = None
    snapshot_id: Annotated[Named | None, BeforeValidator(absent_if_empty)] = None
    source_volid: Refused = None
    source_replica: Refused = None
    backup_id: Refused = None
    volume_type: Annotated[Text | None, BeforeValidator(absent_if_empty)] = None
    image_ref: Annotated[
        Annotated[Reference | None, BeforeValidator(absent_if_empty)],
        Field(validation_alias=AliasChoices("imageRef", "image_id", "image_ref")),
    ] = None
    metadata: dict[Text, Text] | None = None
    availability_zone: Text | None = None

    def request(self, snapshot_id: int | None) -> NewVolume:
        """Return the body as the core's value.

        :param snapshot_id: the number of the snapshot.
        """
        return NewVolume(
            size_gib=self.size,
            image_ref=self.image_ref,
            snapshot_id=snapshot_id,
            volume_type=self.volume_type,
            display_name=self.display_name,
            display_description=self.display_description,
            availability_zone=self.availability_zone,
            metadata=self.metadata or {},
        )


_Force = bool | Literal["true", "True", "false", "False"] | None


def _force(value: object) -> object:
    if value in (True, "true", "True"):
        return True
    if value in (False, None, "false", "False"):
        return False
    raise ValueError(f"Invalid value '{shown(value)}' for force. ")


class CreateSnapshot(BaseModel):
    """The object ``snapshot`` of a create request (specification, section 5.7)."""

    model_config = BODY

    volume_id: Named
    display_name: Text | None = None
    display_description: Text | None = None
    force: Annotated[bool, BeforeValidator(_force, _Force)] = False

    def request(self, volume_id: int) -> NewSnapshot:
        """Return the body as the core's value.

        :param volume_id: the number of the volume.
        """
        return NewSnapshot(volume_id, self.display_name, self.display_description, self.force)


def _device(value: object) -> object:
    """Return a device name; None for ``auto``, Libcloud's word for the next free device."""
    return None if value in ("", "auto") else value


class AttachVolume(BaseModel):
    """The object ``volumeAttachment`` of an attach request (specification, section 5.8)."""

    model_config = BODY

    as_sent: Annotated[int | str, Field(alias="volumeId", union_mode="left_to_right")]
    device: Annotated[Text | None, BeforeValidator(_device)] = None

    @property
    def volume_id(self) -> int | str:
        """The volume's number or uuid; -1 if the id is invalid."""
        return named(self.as_sent)


def read(body: object, entity: str | None, model: type[Model]) -> Model:
    """Validate the body of a request.

    :param entity: the name of the object in the body; None for the body itself.
    :raises MissingEntity: if the body has no such object.
    :raises InvalidRequest: if a part of the object has a wrong type or is out of range.
    """
    found = body
    if entity is not None:
        found = body.get(entity) if isinstance(body, dict) else None
    if not isinstance(found, dict) or not (found or entity in _MAY_BE_EMPTY):
        raise MissingEntity
    return read_part(found, model)
