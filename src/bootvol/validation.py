"""Reads tables of the configuration file, and writes a line for the operator for each mistake.

A line names the file, the table, the key, the value and the remedy.  Secret values are hidden.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from bootvol.errors import ConfigurationError
from bootvol.options import BASE, LISTENING, SECRETS, Secrets

Model = TypeVar("Model", bound=BaseModel)
#: Keys with secret values: messages hide their values.
_SECRET: Final = frozenset(
    {"token", "tokens", "password", "password_hash", "secret", "secret_hash", "url"}
)
#: The user and password of a URL.  A password may contain any character, also a slash.
_CREDENTIALS: Final = re.compile(r"([a-z][a-z0-9+.-]*://)\S*@", re.IGNORECASE)


def validate(
    path: Path,
    place: str,
    model: type[Model],
    table: Mapping[str, object],
    base: Path,
    secrets: Secrets | None = None,
    listening: Collection[str] = (),
) -> Model:
    """Read a table of the configuration as a model.

    :param path: the configuration file, for messages.
    :param place: the table, for messages; empty for the file's root.
    :param base: the folder that relative paths start from.
    :param secrets: records the origin of the table's secrets.
    :param listening: endpoint descriptions that are not checked.
    :raises ConfigurationError: if the table has mistakes; each mistake is one line.
    """
    try:
        return model.model_validate(
            table, context={BASE: base, SECRETS: secrets, LISTENING: listening}
        )
    except ValidationError as error:
        lines = (_mistake(path, place, detail, model) for detail in error.errors())
        raise ConfigurationError("\n".join(lines)) from error


def _mistake(path: Path, place: str, detail: ErrorDetails, model: type[BaseModel]) -> str:
    where = _dotted(place, detail["loc"])
    kind = detail["type"]
    text = _CREDENTIALS.sub(r"\1(hidden)@", str(detail["msg"]).removeprefix("Value error, "))
    if kind == "missing":
        return f"{path}: {where}: is missing. Add the key; twistd.conf explains every key."
    if kind == "extra_forbidden":
        remedy = "correct its name; twistd.conf explains every key."
        if len(detail["loc"]) == 1:
            remedy = f"use one of: {', '.join(model.model_fields)}."
        return f"{path}: {where}: the key is unknown. Remove the key, or {remedy}"
    remedy = "Correct the value; twistd.conf explains every key."
    return f"{path}: {where}: {_shown(detail)}: {text}. {remedy}"


def _shown(detail: ErrorDetails) -> str:
    value = detail["input"]
    secret = _SECRET.intersection(str(part) for part in detail["loc"])
    tables = any(isinstance(each, dict) for each in (value if isinstance(value, list) else [value]))
    return "(hidden)" if secret or tables else _CREDENTIALS.sub(r"\1(hidden)@", repr(value))


def _dotted(place: str, loc: Iterable[str | int]) -> str:
    dotted = place
    for part in loc:
        dotted += f"[{part}]" if isinstance(part, int) else f".{part}"
    return dotted.lstrip(".") or "the file"
