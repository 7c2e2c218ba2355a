"""Changes of images' descriptions, in both media types of Glance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel, model_validator

from bootvol.api.bodies import read_part, shown
from bootvol.api.glance.bodies import ImageBody, check_name
from bootvol.errors import Forbidden, ImageConflict, InvalidRequest
from bootvol.model import ImageRecord, ImageStatus

#: The media types of changes: today's form, and the earlier form.
PATCH: Final = "application/openstack-images-v2.1-json-patch"
EARLIER_PATCH: Final = "application/openstack-images-v2.0-json-patch"
#: The names of properties that a caller may change and that every image has.
_BASE: Final = frozenset(ImageBody.model_fields)
#: Properties that stay when the image has its bytes.
_OF_BYTES: Final = frozenset({"disk_format", "container_format"})


_Path = Annotated[str, Field(min_length=2, max_length=512, pattern="^/")]


class Step(BaseModel):
    """One change of a property.

    The path is a JSON pointer (RFC 6901) with one segment: the name of the property.
    """

    model_config = ConfigDict(strict=True, extra="ignore", defer_build=True)

    op: Literal["add", "replace", "remove"]
    path: _Path
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


class EarlierStep(BaseModel):
    """One change in the earlier form: the name of the operation is the key of the path."""

    model_config = ConfigDict(strict=True, extra="ignore", defer_build=True)

    add: _Path | None = None
    replace: _Path | None = None
    remove: _Path | None = None
    value: object = None

    @model_validator(mode="after")
    def _one(self) -> EarlierStep:
        if len(self.named) != 1:
            raise ValueError("Operation objects must contain exactly one of add, replace, remove")
        return self

    @property
    def named(self) -> Mapping[Literal["add", "replace", "remove"], str]:
        """The paths by operation."""
        given: dict[Literal["add", "replace", "remove"], str | None] = {
            "add": self.add,
            "replace": self.replace,
            "remove": self.remove,
        }
        return {op: path for op, path in given.items() if path is not None}

    def step(self) -> Step:
        """Return the change in today's form."""
        ((op, path),) = self.named.items()
        return Step(op=op, path=path, value=self.value)


class PatchBody(RootModel[list[Step]]):
    """Changes of an image's description, one after the other."""

    model_config = ConfigDict(strict=True, defer_build=True)

    def changed(self, record: ImageRecord) -> ImageRecord:
        """Return a record with all changes.  An addition replaces a present property.

        :raises bootvol.errors.BootvolError: see :func:`changed`.
        """
        return changed(record, self.root)


class EarlierPatchBody(RootModel[list[EarlierStep]]):
    """Changes of an image's description in the form of version 2.0 of the media type."""

    model_config = ConfigDict(strict=True, defer_build=True)

    def changed(self, record: ImageRecord) -> ImageRecord:
        """Return a record with all changes.  An addition of a present property is refused.

        :raises bootvol.errors.BootvolError: see :func:`changed`.
        """
        return changed(record, [each.step() for each in self.root], adds_new=True)


def changed(record: ImageRecord, steps: Sequence[Step], *, adds_new: bool = False) -> ImageRecord:
    """Return a record with all changes.

    :param adds_new: whether an addition needs a name that the image does not have.
    :raises InvalidRequest: if a change or a value is invalid.
    :raises Forbidden: if a property cannot be changed or removed.
    :raises ImageConflict: if a property to replace or remove does not exist, or if a property to
        add exists.
    """
    values = dict(_values_of(record))
    for step in steps:
        name = step.name
        if name not in _BASE:
            check_name(name)
            if step.op != "add" and name not in values:
                raise ImageConflict(f"Property {shown(name)} does not exist.")
        elif step.op == "remove":
            raise Forbidden(f"Property '{name}' may not be removed.")
        if step.op == "add" and adds_new and name in values:
            raise ImageConflict(f"Property {shown(name)} already present.")
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


def _values_of(record: ImageRecord) -> Mapping[str, object]:
    """Return the description of a record, as a body states it."""
    return {
        "name": record.name,
        "owner": record.owner,
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
