"""Models of the bodies about attachments, and the descriptions of hosts in them."""

from __future__ import annotations

from typing import Annotated, Final
from uuid import UUID

import orjson
from pydantic import BeforeValidator, ValidationInfo

from bootvol.api.cinder.bodies import STRICT
from bootvol.api.cinder.words import Versioned, refusal, shown
from bootvol.errors import InvalidRequest
from bootvol.jsons import JsonObject
from bootvol.model import Connector

#: The minor version from which a new attachment may state its mode.
MODES: Final = 54
MODE_NAMES: Final = ("rw", "ro")
#: The most bytes of a host's description.
_LARGEST: Final = 16 * 1024
#: The most characters of a name.
_LONGEST: Final = 255


def uuid(value: object, info: ValidationInfo) -> object:
    """Return a uuid in its usual form; None stays None.

    :raises ValueError: if the value is not a uuid.
    """
    try:
        return value if value is None else str(UUID(str(value)))
    except ValueError:
        why = f"{shown(value)} is not a 'uuid'"
        raise ValueError(refusal(info.field_name, value, why)) from None


def mode(value: object, info: ValidationInfo) -> object:
    """Return a mode; None stays None.

    :raises ValueError: if there is no such mode.
    """
    if value is not None and value not in MODE_NAMES:
        why = f"{shown(value)} is not one of {list(MODE_NAMES)}"
        raise ValueError(refusal(info.field_name, value, why))
    return value


def _not_empty(value: object) -> object:
    if value == {}:
        raise ValueError(refusal("connector", value, "{} should be non-empty"))
    return value


Uuid = Annotated[str, BeforeValidator(uuid, str)]
Mode = Annotated[str | None, BeforeValidator(mode, str | None)]


class CreateAttachment(Versioned):
    """The object ``attachment`` of a create request.  Without a connector, nobody is connected."""

    model_config = STRICT

    volume_uuid: Uuid
    instance_uuid: Annotated[str | None, BeforeValidator(uuid, str | None)] = None
    connector: JsonObject | None = None

    @property
    def wanted_mode(self) -> str | None:
        """The mode that the body states; None for none."""
        return None

    @classmethod
    def at(cls, minor: int) -> type[CreateAttachment]:
        """Return the rules of a minor version: 3.54 and later know modes."""
        return _CreateAttachmentWithMode if minor >= MODES else CreateAttachment


class _CreateAttachmentWithMode(CreateAttachment):
    mode: Mode = None

    @property
    def wanted_mode(self) -> str | None:
        """The mode that the body states; None for none."""
        return self.mode


class UpdateAttachment(Versioned):
    """The object ``attachment`` of an update: the host that is to reach the volume."""

    model_config = STRICT

    connector: Annotated[JsonObject, BeforeValidator(_not_empty, JsonObject)]


def connector(described: JsonObject) -> Connector:
    """Return the host of a description.

    :raises InvalidRequest: if the description names no host, or is too large, or has other values
        than text where names belong.
    """

    def named(member: str) -> str | None:
        value = described.get(member)
        if value is None or (isinstance(value, str) and len(value) <= _LONGEST):
            return value
        kind = "is too long" if isinstance(value, str) else "is not of type 'string'"
        raise InvalidRequest(refusal(member, value, f"{shown(value)} {kind}"))

    host, wanted = named("host"), named("mode")
    if not host:
        why = "'host' is a required property"
        raise InvalidRequest(refusal("connector", described, why))
    if wanted is not None and wanted not in MODE_NAMES:
        why = f"{shown(wanted)} is not one of {list(MODE_NAMES)}"
        raise InvalidRequest(refusal("mode", wanted, why))
    if len(orjson.dumps(described)) > _LARGEST:
        raise InvalidRequest(refusal("connector", "{...}", "the connector is too large"))
    return Connector(host, named("mountpoint"), wanted, described)
