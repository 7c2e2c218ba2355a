"""What clients send: read strictly where it matters, and as the era's clients really spell it."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from bootvol.errors import InvalidRequest, MissingEntity
from bootvol.model import LARGEST_ID, NewSnapshot, NewVolume


def _size(value: object) -> object:
    digits = isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20
    number = int(str(value)) if digits else value
    if not isinstance(number, int) or isinstance(number, bool) or not 0 < number <= LARGEST_ID:
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


def _number(value: object) -> object:
    """Read an id that may come as text (reference, section 2.2); what can be none becomes -1."""
    digits = isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 11
    number = int(str(value)) if digits else value
    return number if isinstance(number, int) and 0 <= number <= LARGEST_ID else -1


#: What the description says may be sent.
_Counted = Annotated[int, Field(ge=1, le=LARGEST_ID)] | Annotated[str, Field(pattern="^[0-9]+$")]

Number = Annotated[int, BeforeValidator(_number, _Counted)]
Size = Annotated[int, BeforeValidator(_size, _Counted)]
Text = Annotated[str, Field(max_length=255), BeforeValidator(_text)]
_Referred = Annotated[str, Field(min_length=1, max_length=2048)]
Reference = Annotated[_Referred, BeforeValidator(_reference, _Referred | int)]


#: Null means absent for every optional key; keys that are not known are ignored.
Body: Final = ConfigDict(strict=True, extra="ignore", populate_by_name=True)

Model = TypeVar("Model", bound=BaseModel)


def _absent_if_empty(value: object) -> object:
    return None if value == "" else value


class CreateVolume(BaseModel):
    """The object ``volume`` of a create request (reference, section 5.5)."""

    model_config = Body

    size: Size | None = None
    display_name: Text | None = None
    display_description: Text | None = None
    snapshot_id: Number | None = None
    volume_type: Annotated[Text | None, BeforeValidator(_absent_if_empty)] = None
    image_ref: Reference | None = Field(default=None, alias="imageRef")
    metadata: dict[Text, Text] | None = None
    availability_zone: Text | None = None

    def wanted(self) -> NewVolume:
        """Return it as the core's value."""
        fields: dict[str, Any] = self.model_dump(exclude={"size", "metadata"})
        return NewVolume(size_gib=self.size, metadata=self.metadata or {}, **fields)


_Force = bool | Literal["true", "True", "false", "False"] | None


def _force(value: object) -> object:
    if value in (True, "true", "True"):
        return True
    if value in (False, None, "false", "False"):
        return False
    raise ValueError(f"Invalid value '{value}' for force. ")


class CreateSnapshot(BaseModel):
    """The object ``snapshot`` of a create request (reference, section 5.7)."""

    model_config = Body

    volume_id: Number
    display_name: Text | None = None
    display_description: Text | None = None
    force: Annotated[bool, BeforeValidator(_force, _Force)] = False

    def wanted(self) -> NewSnapshot:
        """Return it as the core's value."""
        return NewSnapshot(**self.model_dump())


class Attach(BaseModel):
    """The object ``volumeAttachment`` of an attach request (reference, section 5.8)."""

    model_config = Body

    as_sent: Annotated[int | str, Field(alias="volumeId", union_mode="left_to_right")]
    device: Text | None = None

    @property
    def volume_id(self) -> int:
        """The volume's id; -1 where it can be none."""
        number = _number(self.as_sent)
        return number if isinstance(number, int) else -1


def read(body: object, entity: str | None, model: type[Model]) -> Model:
    """Read the body of a request.

    :param entity: the name of the object that it holds; None is the body itself.
    :raises MissingEntity: it has no such object.
    :raises InvalidRequest: a part of that is of a wrong type or out of range.
    """
    found = body
    if entity is not None:
        found = body.get(entity) if isinstance(body, dict) else None
    if not isinstance(found, dict) or not (found or entity in _MAY_BE_EMPTY):
        raise MissingEntity
    try:
        return model.model_validate(found)
    except ValidationError as error:
        raise InvalidRequest(_told(error.errors()[0])) from error


#: An action without parameters is one all the same, and so is a change of nothing.
_MAY_BE_EMPTY: Final = frozenset({"os-getConsoleOutput", "quota_set", "extra_specs", None})


def _told(detail: ErrorDetails) -> str:
    if detail["type"] == "missing":
        return f"Invalid input received: {detail['loc'][-1]} is required"
    if detail["type"] == "value_error":
        return detail["msg"].removeprefix("Value error, ")
    return f"Invalid input received for {detail['loc'][0]}: {detail['msg']}"
