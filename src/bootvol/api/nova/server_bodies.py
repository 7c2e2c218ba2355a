"""What clients send to boot servers, as the era's clients spell it (reference, section 5.9)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, Field

from bootvol.api.nova.bodies import Body, Number, Reference, Size, Text
from bootvol.errors import BadMapping
from bootvol.model import LARGEST_ID, NewDisk, NewServer

_YES, _NO = {"1", "t", "true", "on", "y", "yes"}, {"0", "f", "false", "off", "n", "no", ""}


def _empty(value: object) -> object:
    return None if value == "" else value


def _flag(value: object) -> object:
    said = str(value).lower() if isinstance(value, str | int | None) else "?"
    if said in _YES or said in _NO | {"none"}:
        return said in _YES
    raise ValueError(f"Invalid value '{value}' for delete_on_termination.")


class Mapping(BaseModel):
    """An entry of ``block_device_mapping``."""

    model_config = Body

    device_name: Text
    volume_id: Annotated[Number | None, BeforeValidator(_empty)] = None
    snapshot_id: Annotated[Number | None, BeforeValidator(_empty)] = None
    volume_size: Annotated[Size | None, BeforeValidator(_empty)] = None
    delete_on_termination: Annotated[bool, BeforeValidator(_flag, bool | int | str | None)] = False

    def wanted(self) -> NewDisk:
        """Return it as the core's value.

        :raises BadMapping: it names no volume.
        """
        if self.volume_id is None and self.snapshot_id is None:
            raise BadMapping("Block Device Mapping is Invalid: it names no volume.")
        return NewDisk(
            self.device_name,
            self.volume_id,
            None if self.volume_id is not None else self.snapshot_id,
            self.volume_size,
            self.delete_on_termination,
        )


def _last(value: object) -> object:
    # As with images: an id, or a URL that ends in one.
    return str(value).rstrip("/").rpartition("/")[2] if isinstance(value, str | int) else value


def _count(value: object) -> object:
    return 1 if value in (None, "", 1, "1") else 0


_Short = Annotated[str, Field(max_length=255)]
FlavorRef = Annotated[_Short, BeforeValidator(_last, _Short | int)]
Count = Annotated[int, BeforeValidator(_count, Literal[1, "1", "", None])]


class CreateServer(BaseModel):
    """The object ``server`` of a create request.

    An ``imageRef`` beside the mapping means nothing: servers run from their volumes.
    """

    model_config = Body

    name: Text
    flavor_ref: Annotated[
        str, Field(alias="flavorRef", max_length=255), BeforeValidator(_last, str | int)
    ]
    image_ref: Reference | Annotated[str, Field(max_length=0)] | None = Field(
        default=None, alias="imageRef"
    )
    min_count: Count = 1
    max_count: Count = 1
    block_device_mapping: list[Mapping] | None = None

    def wanted(self) -> NewServer:
        """Return it as the core's value.

        :raises BadMapping: it cannot be had.
        """
        if not (self.min_count and self.max_count):
            raise BadMapping("A volume is the disk of one server: min_count and max_count are 1.")
        disks = tuple(each.wanted() for each in self.block_device_mapping or ())
        return NewServer(self.name, self.flavor_ref, disks)


class GetConsole(BaseModel):
    """The object ``os-getConsoleOutput``."""

    model_config = Body

    length: Annotated[int, Field(ge=1, le=LARGEST_ID)] | None = None
