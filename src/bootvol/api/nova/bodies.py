"""Models of request bodies: strict, but with the spellings of real clients of 2012."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal, TypeVar

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
)
from pydantic_core import ErrorDetails

from bootvol.errors import InvalidRequest, MissingEntity
from bootvol.model import LARGEST_ID, NewSnapshot, NewVolume


def _size(value: object) -> object:
    digits = isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20
    number = int(str(value)) if digits else value
    if not isinstance(number, int) or isinstance(number, bool) or not 0 < number <= LARGEST_ID:
        raise ValueError(
            f"Invalid input received: Volume size '{shown(value)}'"
            " must be an integer and greater than 0"
        )
    return number


def _text(value: object) -> object:
    if isinstance(value, str) and "\0" in value:
        raise ValueError("Invalid input received: text must not contain a null character")
    return value


def _reference(value: object) -> object:
    # Clients send ids as integers, too (specification, section 2.2).
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return str(value) if is_number else _text(value)


def _named(value: object) -> int | str:
    """Return an id from a number, digits (specification, section 2.2) or a uuid; -1 if invalid."""
    if isinstance(value, str):
        if re.fullmatch(_UUID, value):
            return value
        value = int(value) if re.fullmatch("[0-9]{1,10}", value) else -1
    return value if isinstance(value, int) and 0 <= value <= LARGEST_ID else -1


def absent_if_empty(value: object) -> object:
    """Return None for an empty text, because clients send an empty text for no value."""
    return None if value == "" else value


def refused(value: object, info: ValidationInfo) -> None:
    """Refuse an unsupported key with a value, because ignoring the key would mislead the client.

    Null and empty values are accepted.

    :raises ValueError: if the key has a value.
    """
    if value not in (None, "", [], {}):
        raise ValueError(f"Invalid input received: {info.field_name} cannot be used here")


def _device(value: object) -> object:
    """Return a device name; None for ``auto``, Libcloud's word for the next free device."""
    return None if value in ("", "auto") else value


def count(value: object) -> object:
    """Return a number, also from digits; None for an empty text."""
    if isinstance(value, str) and re.fullmatch("[0-9]{1,18}", value):
        return int(value)
    return None if value == "" else value


_UUID: Final = "[0-9A-Fa-f]{8}-?([0-9A-Fa-f]{4}-?){3}[0-9A-Fa-f]{12}"


#: The accepted input in the OpenAPI document.
_Counted = Annotated[int, Field(ge=1, le=LARGEST_ID)] | Annotated[str, Field(pattern="^[0-9]+$")]

Named = Annotated[
    int | str, BeforeValidator(_named, _Counted | Annotated[str, Field(pattern=f"^{_UUID}$")])
]
Refused = Annotated[None, BeforeValidator(refused, str | None)]
Size = Annotated[int, BeforeValidator(_size, _Counted)]
Text = Annotated[str, Field(max_length=255), BeforeValidator(_text)]
_Referred = Annotated[str, Field(min_length=1, max_length=2048)]
Reference = Annotated[_Referred, BeforeValidator(_reference, _Referred | int)]


#: Null means absent for every optional key. Unknown keys are ignored.
Body: Final = ConfigDict(strict=True, extra="ignore", populate_by_name=True)

Model = TypeVar("Model", bound=BaseModel)


class CreateVolume(BaseModel):
    """The object ``volume`` of a create request (specification, section 5.5)."""

    model_config = Body

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

    model_config = Body

    volume_id: Named
    display_name: Text | None = None
    display_description: Text | None = None
    force: Annotated[bool, BeforeValidator(_force, _Force)] = False

    def request(self, volume_id: int) -> NewSnapshot:
        """Return the body as the core's value.

        :param volume_id: the number of the volume.
        """
        return NewSnapshot(volume_id, self.display_name, self.display_description, self.force)


class Attach(BaseModel):
    """The object ``volumeAttachment`` of an attach request (specification, section 5.8)."""

    model_config = Body

    as_sent: Annotated[int | str, Field(alias="volumeId", union_mode="left_to_right")]
    device: Annotated[Text | None, BeforeValidator(_device)] = None

    @property
    def volume_id(self) -> int | str:
        """The volume's number or uuid; -1 if the id is invalid."""
        return _named(self.as_sent)


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


def read_part(part: object, model: type[Model]) -> Model:
    """Validate a part of a body.

    :raises InvalidRequest: if a value has a wrong type or is out of range.
    """
    try:
        return model.model_validate(part)
    except ValidationError as error:
        raise InvalidRequest(_told(error.errors()[0])) from error


#: Maximum number of characters of a part of a body in a message.
_LONGEST_SHOWN: Final = 100

#: These objects may be empty: an action without parameters and a change of nothing are valid. None
#: stands for the body itself.
_MAY_BE_EMPTY: Final = frozenset({"quota_set", "extra_specs", "metadata", None})


def shown(value: object) -> str:
    """Return a part of a body for a message, shortened to a bounded length."""
    if not isinstance(value, str | int | float | None):
        return "[...]"
    text = str(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def _told(detail: ErrorDetails) -> str:
    if detail["type"] == "missing":
        return f"Invalid input received: {detail['loc'][-1]} is required"
    if detail["type"] == "value_error":
        return detail["msg"].removeprefix("Value error, ")
    place = ".".join(map(shown, detail["loc"])) or "the body"
    return f"Invalid input received for {place}: {detail['msg']}"
