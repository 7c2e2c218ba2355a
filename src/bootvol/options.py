"""What a settings model, the daemon's or a plugin's, is built from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationInfo

#: The key of the validation context under which the configuration file's folder is found.
BASE: Final = "base"


class Options(BaseModel):
    """The root of settings models: nothing is guessed, unknown keys are mistakes."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)


def _absolute(value: object, info: ValidationInfo) -> object:
    if not isinstance(value, str | Path):
        return value
    if not str(value) or "\0" in str(value):
        raise ValueError("this is not a path")
    base: Path = (info.context or {}).get(BASE, Path.cwd())
    return base / value


#: A path; a relative one is meant from the configuration file's folder.
ConfigPath = Annotated[Path, BeforeValidator(_absolute)]
