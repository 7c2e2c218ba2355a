"""Models of request bodies for servers, in the clients' spelling (specification, section 5.9)."""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Awaitable, Callable
from typing import Annotated, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, RootModel

from bootvol.api.bodies import (
    BODY,
    Named,
    Reference,
    Refused,
    Size,
    Text,
    absent_if_empty,
    count,
    shown,
)
from bootvol.errors import BadMapping
from bootvol.jsons import JsonObject
from bootvol.lifecycle import Kind
from bootvol.model import LARGEST_ID, ROOT, NewDisk, NewServer
from bootvol.service.ids import NONE

_YES, _NO = {"1", "t", "true", "on", "y", "yes"}, {"0", "f", "false", "off", "n", "no", ""}
#: Longest user data in base64 characters, the same as Nova's limit.
_MOST_USER_DATA: Final = 65535

#: Returns the number of the object that a body names.
Numbered = Callable[[Kind, int | str | None], Awaitable[int | None]]


async def _found(number: Numbered, kind: Kind, named: int | str | None) -> int | None:
    """Return the number of a volume or snapshot.

    :raises BadMapping: if the tenant has no volume or snapshot with the uuid.
    """
    found = await number(kind, named)
    if found is not None and found < 0:
        what = kind if named == NONE else f"{kind} {named}"
        raise BadMapping(f"Block Device Mapping is Invalid: failed to get {what}.")
    return found


def _flag(value: object) -> object:
    said = str(value).lower() if isinstance(value, str | int | None) else "?"
    if said in _YES or said in _NO | {"none"}:
        return said in _YES
    raise ValueError(f"Invalid value '{shown(value)}' for delete_on_termination.")


def _order(value: object) -> object:
    """Return the place in the boot order; -1 (not bootable) for no number or a negative number."""
    if isinstance(value, str) and value.lstrip("-").isdigit() and len(value) < 11:
        value = int(value)
    if value in (None, "", "none", "None"):
        return -1
    return max(value, -1) if isinstance(value, int) and not isinstance(value, bool) else value


def _nothing(value: object) -> object:
    """Refuse an entry that removes a disk, because no such disk exists."""
    if value not in (None, "", False, 0):
        raise ValueError("Block Device Mapping is Invalid: no_device cannot be used here.")
    return None


Flag = Annotated[bool, BeforeValidator(_flag, bool | int | str | None)]
MaybeNamed = Annotated[Named | None, BeforeValidator(absent_if_empty)]
MaybeSize = Annotated[Size | None, BeforeValidator(absent_if_empty)]
Nothing = Annotated[None, BeforeValidator(_nothing, Literal["", False] | None)]


class DeviceMapping(BaseModel):
    """An entry of ``block_device_mapping``, the format of 2011."""

    model_config = ConfigDict(strict=True, extra="forbid")

    device_name: Text
    volume_id: MaybeNamed = None
    snapshot_id: MaybeNamed = None
    volume_size: MaybeSize = None
    delete_on_termination: Flag = False
    no_device: Nothing = None
    virtual_name: Refused = None
    # novaclient of 2014 sends these keys in addition to the old keys, with the same meaning.
    uuid: MaybeNamed = None
    source_type: Literal["volume", "snapshot"] | None = None
    destination_type: Literal["volume"] | None = None
    boot_index: Annotated[int, BeforeValidator(_order, int | str | None)] = -1
    device_type: Text | None = None
    disk_bus: Text | None = None
    guest_format: Refused = None

    async def request(self, number: Numbered) -> NewDisk:
        """Return the entry as the core's value.

        :raises BadMapping: if the entry names no volume.
        """
        volume, snapshot = self.volume_id, self.snapshot_id
        if volume is None and snapshot is None and self.uuid is not None:
            volume, snapshot = (
                (None, self.uuid) if self.source_type == "snapshot" else (self.uuid, None)
            )
        if volume is None and snapshot is None:
            raise BadMapping("Block Device Mapping is Invalid: the entry names no volume.")
        return NewDisk(
            self.device_name,
            await _found(number, Kind.VOLUME, volume),
            None if volume is not None else await _found(number, Kind.SNAPSHOT, snapshot),
            self.volume_size,
            self.delete_on_termination,
        )


class DeviceMapping2(BaseModel):
    """An entry of ``block_device_mapping_v2``."""

    model_config = ConfigDict(strict=True, extra="forbid")

    source_type: Literal["volume", "image", "snapshot", "blank"]
    uuid: Annotated[Reference | None, BeforeValidator(absent_if_empty)] = None
    destination_type: Annotated[
        Literal["volume", "local"] | None, BeforeValidator(absent_if_empty)
    ] = None
    volume_size: MaybeSize = None
    boot_index: Annotated[int, BeforeValidator(_order, int | str | None)] = -1
    device_name: Annotated[Text | None, BeforeValidator(absent_if_empty)] = None
    delete_on_termination: Flag = False
    volume_type: Annotated[Text | None, BeforeValidator(absent_if_empty)] = None
    device_type: Annotated[Literal["disk"] | None, BeforeValidator(absent_if_empty)] = None
    disk_bus: Annotated[Literal["virtio"] | None, BeforeValidator(absent_if_empty)] = None
    no_device: Nothing = None
    guest_format: Refused = None
    tag: Refused = None

    async def request(self, number: Numbered) -> NewDisk:
        """Return the entry as the core's value.

        :raises BadMapping: if bootvol cannot provide such a disk.
        """
        kind = self.source_type
        if self.destination_type == "local" or (
            self.destination_type is None and kind in {"image", "blank"}
        ):
            raise BadMapping(
                "Block Device Mapping is Invalid: destination_type local is not supported,"
                " since servers run from volumes: use destination_type volume."
            )
        if (self.uuid is None) != (kind == "blank"):
            raise BadMapping(
                f"Block Device Mapping is Invalid: source_type {kind} "
                + ("takes no uuid." if kind == "blank" else "needs a uuid.")
            )
        if kind in {"image", "blank"} and self.volume_size is None:
            raise BadMapping(
                f"Block Device Mapping is Invalid: source_type {kind} needs a volume_size."
            )
        return NewDisk(
            self._device(),
            await _found(number, Kind.VOLUME, self.uuid) if kind == "volume" else None,
            await _found(number, Kind.SNAPSHOT, self.uuid) if kind == "snapshot" else None,
            None if kind == "volume" else self.volume_size,
            self.delete_on_termination,
            self.uuid if kind == "image" else None,
            None if kind == "volume" else self.volume_type,
        )

    def _device(self) -> str:
        """Return the disk's device name in the server.

        :raises BadMapping: if the entry names the boot disk's device but is not the boot disk.
        """
        named = self.device_name or ""
        is_root = named.removeprefix("/dev/") == ROOT
        if self.boot_index == 0:
            return named if is_root else ROOT
        if is_root:
            raise BadMapping(
                f"Block Device Mapping is Invalid: {named} is the name of the boot disk, for the"
                " entry"
                " with boot_index 0."
            )
        return named


def _last(value: object) -> object:
    # As for images: an id, or a URL that ends in an id.
    return str(value).rstrip("/").rpartition("/")[2] if isinstance(value, str | int) else value


def _one(value: object) -> object:
    return 1 if value in (None, "", 1, "1") else 0


def _user_data(value: object) -> object:
    if value in (None, ""):
        return None
    if not isinstance(value, str) or len(value) > _MOST_USER_DATA:
        raise ValueError(f"User data must be base64 of at most {_MOST_USER_DATA} characters")
    try:
        b64decode("".join(value.split()), validate=True)
    except (NotBase64, ValueError):
        raise ValueError("User data needs to be valid base 64.") from None
    return "".join(value.split())


def _drive(value: object) -> object:
    """Return whether the client wants a config drive; refuse other values (images) of 2011."""
    if isinstance(value, str | int | None) and str(value).lower() in _YES | _NO | {"none"}:
        return str(value).lower() in _YES
    raise ValueError("config_drive must be true or false: images are not supported")


_Short = Annotated[str, Field(max_length=255)]
FlavorRef = Annotated[_Short, BeforeValidator(_last, _Short | int)]
One = Annotated[int, BeforeValidator(_one, Literal[1, "1", "", None])]
Metadata = dict[Annotated[Text, Field(min_length=1)], Text]


class CreateServer(BaseModel):
    """The object ``server`` of a create request."""

    model_config = BODY

    name: Text
    flavor_ref: Annotated[
        str, Field(alias="flavorRef", max_length=255), BeforeValidator(_last, str | int)
    ]
    image_ref: Annotated[
        Reference | None,
        BeforeValidator(absent_if_empty, str | int | None),
        Field(alias="imageRef"),
    ] = None
    min_count: One = 1
    max_count: One = 1
    block_device_mapping: list[DeviceMapping] | None = None
    block_device_mapping_v2: list[DeviceMapping2] | None = None
    metadata: Metadata | None = None
    key_name: Annotated[Text | None, BeforeValidator(absent_if_empty)] = None
    user_data: Annotated[str | None, BeforeValidator(_user_data, str | None)] = None
    config_drive: Annotated[bool, BeforeValidator(_drive, bool | str | None)] = False
    availability_zone: Annotated[Text | None, BeforeValidator(absent_if_empty)] = None
    personality: Refused = None

    async def request(self, number: Numbered) -> NewServer:
        """Return the body as the core's value.

        :param number: returns the number of a volume or snapshot.
        :raises BadMapping: if bootvol cannot provide such a server.
        """
        if not (self.min_count and self.max_count):
            raise BadMapping(
                "A volume is the disk of one server: min_count and max_count must be 1."
            )
        if self.block_device_mapping and self.block_device_mapping_v2:
            raise BadMapping(
                "Using different block_device_mapping syntaxes is not allowed in the same request."
            )
        if self.image_ref is not None and not self._is_root(self.image_ref):
            raise BadMapping(
                "imageRef is not supported, since servers run from volumes: leave imageRef out, and"
                " name the image in block_device_mapping_v2, with source_type image and"
                " destination_type volume."
            )
        entries = self.block_device_mapping_v2 or self.block_device_mapping or ()
        orders = [each.boot_index for each in self.block_device_mapping_v2 or ()]
        if orders and orders.count(0) != 1:
            # The message is Nova's.
            raise BadMapping(
                "Block Device Mapping is Invalid: Boot sequence for the instance and image/block"
                " device mapping combination is not valid."
            )
        return NewServer(
            self.name,
            self.flavor_ref,
            tuple([await each.request(number) for each in entries]),
            self.metadata or {},
            self.key_name,
            self.user_data,
            self.availability_zone,
            self.config_drive,
        )

    def _is_root(self, image_ref: str) -> bool:
        """Tell whether the boot disk is made from the image: clients may name the image twice."""
        return any(
            each.boot_index == 0 and each.source_type == "image" and each.uuid == image_ref
            for each in self.block_device_mapping_v2 or ()
        )


class ChangeServer(BaseModel):
    """The object ``server`` of an update."""

    model_config = BODY

    name: Annotated[Text, Field(min_length=1)] | None = None
    access_ip_v4: Annotated[Refused, Field(alias="accessIPv4")] = None
    access_ip_v6: Annotated[Refused, Field(alias="accessIPv6")] = None


class MetadataItems(RootModel[Metadata]):
    """The object ``metadata``, or ``meta`` with one item."""

    model_config = ConfigDict(strict=True)


class GetConsole(BaseModel):
    """The object ``os-getConsoleOutput``."""

    model_config = BODY

    length: Annotated[
        Annotated[int, Field(ge=-1, le=LARGEST_ID)] | None,
        BeforeValidator(count, int | str | None),
    ] = None

    @property
    def lines(self) -> int | None:
        """The number of requested lines; None for all lines, Nova's -1."""
        return None if self.length == -1 else self.length


def _kind(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


class Reboot(BaseModel):
    """The object ``reboot``."""

    model_config = BODY

    type: Annotated[Literal["SOFT", "HARD"], BeforeValidator(_kind, Literal["SOFT", "HARD"])]


class Action(RootModel[JsonObject]):
    """An action on a server: one name, with its parameters."""

    model_config = ConfigDict(
        strict=True,
        json_schema_extra={
            "minProperties": 1,
            "maxProperties": 1,
            "propertyNames": {"enum": ["os-getConsoleOutput", "os-start", "os-stop", "reboot"]},
        },
    )
