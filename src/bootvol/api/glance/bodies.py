"""Request bodies of Glance's API v2: descriptions of images, and changes of descriptions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal

import attrs
from pydantic import BaseModel, ConfigDict, Field, RootModel, field_validator
from twisted.web.iweb import IRequest

from bootvol.api.bodies import Text, read_part, shown
from bootvol.api.glance.views import RESERVED
from bootvol.api.http import read_json
from bootvol.api.operations import Operation
from bootvol.errors import Forbidden, ImageConflict, InvalidRequest
from bootvol.model import LARGEST_ID, ImageRecord, ImageStatus, Visibility

#: The media type of changes.
PATCH: Final = "application/openstack-images-v2.1-json-patch"
#: The most properties and tags of an image, the same as Glance's.
_MOST_PROPERTIES: Final = 128
_MOST_TAGS: Final = 128
#: The most characters of all properties and tags of an image.  A list may have 1,000 images.
_LONGEST: Final = 8192
#: Disk formats that bootvol can make volumes of.
DiskFormat = Literal["raw", "iso", "qcow2", "vmdk", "vhd", "vhdx", "vdi"]
_Count = Annotated[int, Field(ge=0, le=LARGEST_ID)]


class ImageBody(BaseModel):
    """The description of an image.  Further keys are the owner's own properties, all of them texts.

    Members with None are absent.
    """

    model_config = ConfigDict(strict=True, extra="allow", defer_build=True)
    __pydantic_extra__: dict[str, Annotated[str, Field(max_length=_LONGEST)]]

    name: Text | None = None
    visibility: Literal["private", "shared", "community", "public"] | None = None
    disk_format: DiskFormat | None = None
    container_format: Literal["bare"] | None = None
    min_disk: _Count | None = None
    min_ram: _Count | None = None
    protected: bool | None = None
    os_hidden: bool | None = None
    tags: list[Text] | None = Field(default=None, max_length=_MOST_TAGS)

    @field_validator("tags")
    @classmethod
    def _once(cls, tags: list[str] | None) -> list[str] | None:
        return None if tags is None else list(dict.fromkeys(tags))

    def described(self, record: ImageRecord) -> ImageRecord:
        """Return a record with this description.

        :raises Forbidden: if the body states what only bootvol may state.
        :raises InvalidRequest: if the body has too many properties.
        """
        properties = self.__pydantic_extra__ or {}
        for name in properties:
            if name == "owner" and properties[name] == record.owner:
                continue
            check_name(name)
        own = {name: value for name, value in properties.items() if name != "owner"}
        if len(own) > _MOST_PROPERTIES:
            raise InvalidRequest(f"An image has at most {_MOST_PROPERTIES} properties.")
        if sum(map(len, (*own, *own.values(), *(self.tags or ())))) > _LONGEST:
            raise InvalidRequest(
                f"The properties and tags of an image have at most {_LONGEST} characters together."
            )
        return attrs.evolve(
            record,
            name=self.name,
            visibility=Visibility(self.visibility or Visibility.PRIVATE),
            disk_format=self.disk_format,
            container_format=self.container_format,
            min_disk_gib=self.min_disk or 0,
            min_ram_mib=self.min_ram or 0,
            is_protected=bool(self.protected),
            is_hidden=bool(self.os_hidden),
            tags=tuple(self.tags or ()),
            properties=own,
        )


#: The names of properties that a caller may change and that every image has.
_BASE: Final = frozenset(ImageBody.model_fields)
#: Properties that stay when the image has its bytes.
_OF_BYTES: Final = frozenset({"disk_format", "container_format"})


class Step(BaseModel):
    """One change of a property.

    The path is a JSON pointer (RFC 6901) with one segment: the name of the property.
    """

    model_config = ConfigDict(strict=True, extra="ignore", defer_build=True)

    op: Literal["add", "replace", "remove"]
    path: Annotated[str, Field(min_length=2, max_length=512, pattern="^/")]
    value: object = None

    @property
    def name(self) -> str:
        """The name of the property.

        :raises InvalidRequest: if the path is invalid, or has several segments.
        """
        name = self.path[1:]
        if "/" in name or "~" in name.replace("~0", "").replace("~1", ""):
            raise InvalidRequest(f"Invalid JSON pointer for this resource: '{shown(self.path)}'")
        return name.replace("~1", "/").replace("~0", "~")


class PatchBody(RootModel[list[Step]]):
    """Changes of an image's description, one after the other."""

    model_config = ConfigDict(strict=True, defer_build=True)

    def changed(self, record: ImageRecord) -> ImageRecord:
        """Return a record with all changes.

        :raises InvalidRequest: if a change or a value is invalid.
        :raises Forbidden: if a property cannot be changed or removed.
        :raises ImageConflict: if a property to replace or remove does not exist.
        """
        values = dict(_values_of(record))
        for step in self.root:
            name = step.name
            if name not in _BASE:
                check_name(name)
                if step.op != "add" and name not in values:
                    raise ImageConflict(f"Property {shown(name)} does not exist.")
            elif step.op == "remove":
                raise Forbidden(f"Property '{name}' may not be removed.")
            if step.op == "remove":
                del values[name]
            else:
                values[name] = step.value
        new = read_part(values, ImageBody).described(record)
        if record.status is not ImageStatus.QUEUED:
            for name in _OF_BYTES:
                if getattr(new, name) != getattr(record, name):
                    raise Forbidden(f"Attribute '{name}' can be changed only of a queued image.")
        return new


def check_name(name: str) -> None:
    """Check the name of an owner's own property.

    :raises Forbidden: if only bootvol states the property.
    :raises InvalidRequest: if the name is invalid.
    """
    if name in RESERVED:
        raise Forbidden(f"Attribute '{name}' is read-only.")
    if not 0 < len(name) <= 255 or not name.isprintable():
        raise InvalidRequest(f"Invalid name of a property: '{shown(name)}'")


def read_body(request: IRequest, operation: Operation, model: type[BaseModel]) -> BaseModel:
    """Validate the body of a request.

    :raises bootvol.errors.BootvolError: if the body is not JSON or does not fit the model.
    """
    return read_part(read_json(request, operation.takes), model)


def _values_of(record: ImageRecord) -> Mapping[str, object]:
    """Return the description of a record, as a body states it."""
    return {
        "name": record.name,
        "visibility": record.visibility.value,
        "disk_format": record.disk_format,
        "container_format": record.container_format,
        "min_disk": record.min_disk_gib,
        "min_ram": record.min_ram_mib,
        "protected": record.is_protected,
        "os_hidden": record.is_hidden,
        "tags": list(record.tags),
        **record.properties,
    }
