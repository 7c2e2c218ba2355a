"""Request bodies of Glance's API v2: descriptions of images, and changes of descriptions."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import attrs
from pydantic import BaseModel, ConfigDict, Field, field_validator
from twisted.web.iweb import IRequest

from bootvol.api.bodies import BODY, Text, read_part, shown
from bootvol.api.glance.views import RESERVED
from bootvol.api.http import read_json
from bootvol.api.operations import Operation
from bootvol.errors import Forbidden, InvalidRequest
from bootvol.model import LARGEST_ID, ImageRecord, MemberStatus, Visibility

#: The most properties and tags of an image, the same as Glance's.
_MOST_PROPERTIES: Final = 128
_MOST_TAGS: Final = 128
#: The most characters of all properties and tags of an image.  A list may have 1,000 images.
_LONGEST: Final = 8192
#: Disk formats that bootvol can make volumes of.
DiskFormat = Literal["raw", "iso", "qcow2", "vmdk", "vhd", "vhdx", "vdi"]
#: The beginning of the names that only the service gives.
_RESERVED_PREFIX: Final = "os_glance"
_Count = Annotated[int, Field(ge=0, le=LARGEST_ID)]


class ImageBody(BaseModel):
    """The description of an image.  Further keys are the owner's own properties, all of them texts.

    Members with None are absent.
    """

    model_config = ConfigDict(strict=True, extra="allow", defer_build=True)
    __pydantic_extra__: dict[str, Annotated[str, Field(max_length=_LONGEST)]]

    name: Text | None = None
    owner: Annotated[Text, Field(min_length=1)] | None = None
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
        own = self.__pydantic_extra__ or {}
        for name in own:
            check_name(name)
        if len(own) > _MOST_PROPERTIES:
            raise InvalidRequest(f"An image has at most {_MOST_PROPERTIES} properties.")
        if sum(map(len, (*own, *own.values(), *(self.tags or ())))) > _LONGEST:
            raise InvalidRequest(
                f"The properties and tags of an image have at most {_LONGEST} characters together."
            )
        return attrs.evolve(
            record,
            name=self.name,
            owner=self.owner or record.owner,
            # A shared image without members is for its owner alone.
            visibility=Visibility(self.visibility or Visibility.SHARED),
            disk_format=self.disk_format,
            container_format=self.container_format,
            min_disk_gib=self.min_disk or 0,
            min_ram_mib=self.min_ram or 0,
            is_protected=bool(self.protected),
            is_hidden=bool(self.os_hidden),
            tags=tuple(self.tags or ()),
            properties=own,
        )


class MemberBody(BaseModel):
    """A new member of an image."""

    model_config = BODY

    member: Annotated[Text, Field(min_length=1)]


class AnswerBody(BaseModel):
    """The answer of a member."""

    model_config = BODY

    status: Literal["pending", "accepted", "rejected"]

    @property
    def answer(self) -> MemberStatus:
        """The answer as the core names it."""
        return MemberStatus(self.status)


def check_name(name: str) -> None:
    """Check the name of an owner's own property.

    :raises Forbidden: if only bootvol states the property.
    :raises InvalidRequest: if the name is invalid.
    """
    if name in RESERVED:
        raise Forbidden(f"Attribute '{name}' is read-only.")
    if name.startswith(_RESERVED_PREFIX):
        raise Forbidden(f"Attribute '{shown(name)}' is reserved.")
    if not 0 < len(name) <= 255 or not name.isprintable():
        raise InvalidRequest(f"Invalid name of a property: '{shown(name)}'")


def read_body(request: IRequest, operation: Operation, model: type[BaseModel]) -> BaseModel:
    """Validate the body of a request.

    :raises bootvol.errors.BootvolError: if the body is not JSON or does not fit the model.
    """
    stated = (request.getHeader(b"content-type") or b"").partition(b";")[0]
    media = stated.strip().lower().decode("latin-1")
    if media in operation.also_takes:
        return read_part(read_json(request, media), operation.also_takes[media])
    return read_part(read_json(request, operation.takes), model)
