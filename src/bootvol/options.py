"""Building blocks of settings models, for the daemon and for plugins."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path
from typing import Annotated, Final

import attrs
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    TypeAdapter,
    ValidationInfo,
)

from bootvol import reading
from bootvol.private import Kept

#: Key of the validation context for the folder of the configuration file.
BASE: Final = "base"
#: Key of the validation context for a :class:`Secrets`.
SECRETS: Final = "secrets"
#: Key of the validation context for the endpoint descriptions that are not checked.
LISTENING: Final = "listening"


@attrs.define
class Secrets:
    """The origin of the secrets in a configuration.

    :ivar files: files that secrets were read from.
    :ivar written: whether the configuration file itself contains a secret.
    """

    files: set[Path] = attrs.field(factory=set)
    written: bool = False


class Options(BaseModel):
    """The base class of settings models: types are strict, and unknown keys are mistakes."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        # The docstring below a field is the field's description for operators.
        use_attribute_docstrings=True,
    )


def _absolute(value: object, info: ValidationInfo) -> object:
    if not isinstance(value, str | Path):
        return value
    if not str(value) or "\0" in str(value):
        raise ValueError("this is not a path")
    base: Path = (info.context or {}).get(BASE, Path.cwd())
    return base / value


def _without_control(value: str) -> str:
    # No database stores all control characters, and they break lines in logs and terminals.
    if any(unicodedata.category(each) in ("Cc", "Cs") for each in value):
        raise ValueError("control characters are not allowed")
    return value


#: A name or other short text for people, without control characters.
Text = Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_without_control)]

#: A path; a relative path starts from the folder of the configuration file.
ConfigPath = Annotated[Path, BeforeValidator(_absolute)]

# Paths with limited rights of other users: the daemon refuses to start if others have more rights.
# See :class:`bootvol.private.Kept`.
#: A file that holds a secret.
SecretFile = Annotated[ConfigPath, Kept.SECRET]
#: A file that the daemon relies on.
TrustedFile = Annotated[ConfigPath, Kept.TRUSTED]
#: A folder that the daemon writes to.
OwnFolder = Annotated[ConfigPath, Kept.FOLDER]
#: A folder that other users may not enter.
ClosedFolder = Annotated[ConfigPath, Kept.CLOSED]
#: A folder of certificates and their keys, in PEM.
CredentialsFolder = Annotated[ConfigPath, Kept.CREDENTIALS]
#: A folder that the operator may let others write to.
SharedFolder = Annotated[ConfigPath, Kept.SHARED]


def indirect(value: object, info: ValidationInfo) -> object:
    """Return a text given directly, as ``file:PATH`` or as ``env:NAME``.

    No message contains the text: an operator may have written the secret itself.
    """
    if not isinstance(value, str):
        return value
    secrets: Secrets = (info.context or {}).get(SECRETS) or Secrets()
    kind, _, rest = value.partition(":")
    if kind == "file":
        path = TypeAdapter(ConfigPath).validate_python(rest, context=info.context)
        try:
            text = reading.content(path).decode().strip()
        except OSError as error:
            raise ValueError(f"the file {rest} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ValueError(f"the file {rest} is not UTF-8 text") from None
        secrets.files.add(path)
        if not text:
            raise ValueError(f"the file {rest} is empty")
        return text
    if kind == "env":
        found = os.environ.get(rest, "").strip()
        if not found:
            raise ValueError(f"the environment variable {rest} is not set")
        return found
    if not value:
        raise ValueError("the value is empty")
    secrets.written = True
    return value


#: A secret that no message shows: see :func:`indirect`.
Secret = Annotated[SecretStr, BeforeValidator(indirect), Field(min_length=1)]
