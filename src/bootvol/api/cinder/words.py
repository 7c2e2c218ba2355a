"""The words of refused bodies: those of the JSON schemas that Cinder validates with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Self, TypeVar

from pydantic import BaseModel, ValidationError, ValidationInfo
from pydantic_core import ErrorDetails

from bootvol.errors import InvalidRequest

Model = TypeVar("Model", bound=BaseModel)


class Versioned(BaseModel):
    """An object of a body, with other rules in later microversions."""

    @classmethod
    def at(cls, minor: int) -> type[Self]:
        """Return the rules of a minor version."""
        return cls


MALFORMED: Final = (
    "The server could not comply with the request since it is either malformed or otherwise"
    " incorrect."
)
#: Maximum number of characters of a value in a message.
_LONGEST: Final = 300
_TYPES: Final = {
    "string_type": "string",
    "dict_type": "object",
    "int_type": "integer",
    "bool_type": "boolean",
}


def refusal(field: object, value: object, why: str) -> str:
    """Return the message about a value of a body.

    :param why: the rule that the value breaks.
    """
    return f"Invalid input for field/attribute {_cut(field)}. Value: {_cut(value)}. {why}"


def one_of(allowed: Sequence[str]) -> Callable[[object, ValidationInfo], object]:
    """Return a check of a member that may have some values only; null means a missing member."""

    def check(value: object, info: ValidationInfo) -> object:
        if value is not None and value not in allowed:
            why = f"{shown(value)} is not one of {list(allowed)}"
            raise ValueError(refusal(info.field_name, value, why))
        return value

    return check


def read(
    body: object, entity: str | None, model: type[BaseModel], top: frozenset[str], minor: int
) -> BaseModel:
    """Validate the body of a request.

    :param entity: the name of the object in the body; None for the body itself.
    :param top: names beside the object that are ignored.
    :param minor: the minor version of the request.
    :raises InvalidRequest: if the body does not fit the model.
    """
    if not isinstance(body, Mapping):
        raise InvalidRequest(f"{shown(body)} is not of type 'object'")
    if issubclass(model, Versioned):
        model = model.at(minor)
    if entity is None:
        return read_part("", body, model)
    if entity not in body:
        raise InvalidRequest(f"'{entity}' is a required property")
    more = [name for name in body if name != entity and name not in top]
    if more:
        raise InvalidRequest(
            f"Additional properties are not allowed ({shown(more[0])} was unexpected)"
        )
    part = body[entity]
    if not isinstance(part, Mapping):
        raise InvalidRequest(refusal(entity, part, f"{shown(part)} is not of type 'object'"))
    return read_part(entity, part, model)


def read_part(entity: str, part: object, model: type[Model]) -> Model:
    """Validate an object of a body.

    :param entity: the object's name.
    :raises InvalidRequest: if the object does not fit the model.
    """
    try:
        return model.model_validate(part)
    except ValidationError as error:
        raise InvalidRequest(_message(entity, part, error.errors()[0])) from error


def _message(entity: str, part: object, detail: ErrorDetails) -> str:
    kind, value = detail["type"], detail["input"]
    place = [each for each in detail["loc"] if isinstance(each, str)]
    if kind == "value_error":
        return detail["msg"].removeprefix("Value error, ")
    if kind == "missing":
        why = f"{shown(place[-1])} is a required property"
        return refusal(entity, part, why) if entity else why
    if kind == "extra_forbidden":
        why = f"Additional properties are not allowed ({shown(place[-1])} was unexpected)"
        return refusal(entity, part, why) if entity else why
    if place and place[-1] == "[key]":
        pattern = detail.get("ctx", {}).get("pattern", "^.{1,255}$")
        why = f"{shown(value)} does not match any of the regexes: {shown(pattern)}"
        return refusal(place[0] if len(place) > 2 else entity, _parent(part, place), why)
    field = place[-1] if place else entity
    texts = ("name", "description", "display_name", "display_description")
    if kind == "string_too_long" and entity == "volume" and field in texts:
        return f"Invalid input received: {field} has {len(str(value))} characters, more than 255."
    if kind == "string_too_long":
        return refusal(field, value, f"{shown(value)} is too long")
    if kind == "string_too_short":
        return refusal(field, value, f"{shown(value)} should be non-empty")
    if kind in _TYPES:
        # The members of the object itself may be null.
        more = ", 'null'" if len(place) == 1 and entity else ""
        return refusal(field, value, f"{shown(value)} is not of type '{_TYPES[kind]}'{more}")
    return refusal(field, value, f"{shown(value)} is not valid under any of the given schemas")


def _parent(part: object, place: list[str]) -> object:
    return part.get(place[0]) if isinstance(part, Mapping) and len(place) > 2 else part


def shown(value: object) -> str:
    """Return a value of a body in Python's form, shortened to a bounded length."""
    return _cut(repr(value) if isinstance(value, str | int | float | None) else _cut(value))


def _cut(value: object) -> str:
    """Return the text of a value, and make no text of a large value."""
    if isinstance(value, Mapping | list) and len(value) > 8:
        return "{...}" if isinstance(value, Mapping) else "[...]"
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
