"""Parts of request bodies, for all dialects: strict, but with the spellings of real clients."""

from __future__ import annotations

import re
from typing import Annotated, Final, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo
from pydantic_core import ErrorDetails

from bootvol.errors import InvalidRequest
from bootvol.model import LARGEST_ID

Model = TypeVar("Model", bound=BaseModel)


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


def named(value: object) -> int | str:
    """Return an id from a number, digits (specification, section 2.2) or a uuid; -1 if invalid."""
    if isinstance(value, str):
        if re.fullmatch(_UUID, value):
            return value
        value = int(value) if re.fullmatch("[0-9]{1,10}", value) else -1
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= LARGEST_ID:
        return -1
    return value


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


def count(value: object) -> object:
    """Return a number, also from digits; None for an empty text."""
    if isinstance(value, str) and re.fullmatch("[0-9]{1,18}", value):
        return int(value)
    return None if value == "" else value


_UUID: Final = "[0-9A-Fa-f]{8}-?([0-9A-Fa-f]{4}-?){3}[0-9A-Fa-f]{12}"


#: The accepted input in the OpenAPI document.
_Counted = Annotated[int, Field(ge=1, le=LARGEST_ID)] | Annotated[str, Field(pattern="^[0-9]+$")]

Named = Annotated[
    int | str, BeforeValidator(named, _Counted | Annotated[str, Field(pattern=f"^{_UUID}$")])
]
Refused = Annotated[None, BeforeValidator(refused, str | None)]
Size = Annotated[int, BeforeValidator(_size, _Counted)]
Text = Annotated[str, Field(max_length=255), BeforeValidator(_text)]
_Referred = Annotated[str, Field(min_length=1, max_length=2048)]
Reference = Annotated[_Referred, BeforeValidator(_reference, _Referred | int)]


#: Null means absent for every optional key. Unknown keys are ignored. A model is built at its first
#: use, because the models of all bodies take memory.
BODY: Final = ConfigDict(strict=True, extra="ignore", populate_by_name=True, defer_build=True)


def read_part(part: object, model: type[Model]) -> Model:
    """Validate a part of a body.

    :raises InvalidRequest: if a value has a wrong type or is out of range.
    """
    try:
        return model.model_validate(part)
    except ValidationError as error:
        raise InvalidRequest(_message(error.errors()[0])) from error


#: Maximum number of characters of a part of a body in a message.
_LONGEST_SHOWN: Final = 100


def shown(value: object) -> str:
    """Return a part of a body for a message, shortened to a bounded length."""
    if not isinstance(value, str | int | float | None):
        return "[...]"
    text = str(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def _message(detail: ErrorDetails) -> str:
    if detail["type"] == "missing":
        return f"Invalid input received: {detail['loc'][-1]} is required"
    if detail["type"] == "value_error":
        return detail["msg"].removeprefix("Value error, ")
    place = ".".join(map(shown, detail["loc"])) or "the body"
    return f"Invalid input received for {place}: {detail['msg']}"
