"""What clients send: read strictly where it matters, and as the era's clients really spell it."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from bootvol.errors import InvalidRequest, MissingEntity
from bootvol.model import NewVolume

#: Far above any volume, and within what every database calls an integer.
_LARGEST: Final = 2**31 - 1


def _size(value: object) -> object:
    digits = isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20
    number = int(str(value)) if digits else value
    if not isinstance(number, int) or isinstance(number, bool) or not 0 < number <= _LARGEST:
        raise ValueError(
            f"Invalid input received: Volume size '{value}' must be an integer and greater than 0"
        )
    return number


def _text(value: object) -> object:
    if isinstance(value, str) and "\0" in value:
        raise ValueError("Invalid input received: text must not hold a zero character")
    return value


def _reference(value: object) -> object:
    # Ids come as integers too (reference, section 2.2).
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return str(value) if is_number else _text(value)


Size = Annotated[int, BeforeValidator(_size)]
Text = Annotated[str, Field(max_length=255), BeforeValidator(_text)]
Reference = Annotated[str, Field(min_length=1, max_length=2048), BeforeValidator(_reference)]


class CreateVolume(BaseModel):
    """The object ``volume`` of a create request (reference, section 5.5).

    Null means absent for every optional key; keys that are not known are ignored.
    """

    model_config = ConfigDict(strict=True, extra="ignore", populate_by_name=True)

    size: Size
    display_name: Text | None = None
    display_description: Text | None = None
    snapshot_id: Reference | None = None
    image_ref: Reference | None = Field(default=None, alias="imageRef")
    metadata: dict[Text, Text] | None = None
    availability_zone: Text | None = None


def create_volume(body: object) -> NewVolume:
    """Read the body of a create request.

    :raises MissingEntity: it has no object ``volume``.
    :raises InvalidRequest: a part of that is of a wrong type or out of range.
    """
    entity = body.get("volume") if isinstance(body, dict) else None
    if not isinstance(entity, dict) or not entity:
        raise MissingEntity
    try:
        asked = CreateVolume.model_validate(entity)
    except ValidationError as error:
        raise InvalidRequest(_told(error.errors()[0])) from error
    fields: dict[str, Any] = asked.model_dump(exclude={"size", "metadata"})
    return NewVolume(size_gib=asked.size, metadata=asked.metadata or {}, **fields)


def _told(detail: ErrorDetails) -> str:
    if detail["type"] == "missing":
        return f"Invalid input received: {detail['loc'][-1]} is required"
    if detail["type"] == "value_error":
        return detail["msg"].removeprefix("Value error, ")
    return f"Invalid input received for {detail['loc'][0]}: {detail['msg']}"
