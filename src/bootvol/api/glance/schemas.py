"""The JSON schemas of Glance's API v2: images, members of images, and tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from bootvol.jsons import JsonObject
from bootvol.model import ImageStatus, MemberStatus, Visibility

_TEXT: Final = {"type": ["null", "string"]}
_NUMBER: Final = {"type": ["null", "integer"]}
_MOMENTS: Final = {"type": ["null", "string"], "format": "date-time"}

#: The JSON schema of an image.
_IMAGE: Final[JsonObject] = {
    "name": "image",
    "properties": {
        "id": {"type": "string"},
        "name": _TEXT,
        "status": {"type": "string", "enum": [each.value for each in ImageStatus]},
        "visibility": {"type": "string", "enum": [each.value for each in Visibility]},
        "protected": {"type": "boolean"},
        "os_hidden": {"type": "boolean"},
        "owner": _TEXT,
        "size": _NUMBER,
        "virtual_size": _NUMBER,
        "disk_format": _TEXT,
        "container_format": _TEXT,
        "checksum": _TEXT,
        "os_hash_algo": _TEXT,
        "os_hash_value": _TEXT,
        "min_disk": {"type": "integer"},
        "min_ram": {"type": "integer"},
        "created_at": _MOMENTS,
        "updated_at": _MOMENTS,
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 255}},
        "file": {"type": "string"},
        "self": {"type": "string"},
        "schema": {"type": "string"},
    },
    "additionalProperties": {"type": "string"},
    "links": [
        {"rel": "self", "href": "{self}"},
        {"rel": "describedby", "href": "{schema}"},
    ],
}
#: The JSON schema of a list of images.
_IMAGES: Final[JsonObject] = {
    "name": "images",
    "properties": {
        "images": {"type": "array", "items": _IMAGE},
        "schema": {"type": "string"},
        "next": {"type": "string"},
        "first": {"type": "string"},
    },
    "links": [
        {"rel": "first", "href": "{first}"},
        {"rel": "next", "href": "{next}"},
        {"rel": "describedby", "href": "{schema}"},
    ],
}
_MEMBER: Final[JsonObject] = {
    "name": "member",
    "properties": {
        "member_id": {"type": "string"},
        "image_id": {"type": "string"},
        "status": {"type": "string", "enum": [each.value for each in MemberStatus]},
        "created_at": {"type": "string"},
        "updated_at": {"type": "string"},
        "schema": {"type": "string", "readOnly": True},
    },
}
_TASK: Final[JsonObject] = {
    "name": "task",
    "properties": {
        "id": {"type": "string"},
        "type": {"type": "string", "enum": ["api_image_import"]},
        "status": {"type": "string", "enum": ["pending", "processing", "success", "failure"]},
        "owner": {"type": "string"},
        "input": {"type": ["null", "object"]},
        "result": {"type": ["null", "object"]},
        "message": {"type": "string"},
        "image_id": {"type": "string"},
        "request_id": {"type": "string"},
        "user_id": {"type": "string"},
        "created_at": {"type": "string"},
        "updated_at": {"type": "string"},
        "expires_at": {"type": ["null", "string"]},
        "self": {"type": "string"},
        "schema": {"type": "string"},
    },
}


def _listed(name: str, schema: JsonObject) -> JsonObject:
    """Return the schema of a list whose members have a schema."""
    return {
        "name": name,
        "properties": {
            name: {"type": "array", "items": schema},
            "schema": {"type": "string"},
        },
        "links": [{"rel": "describedby", "href": "{schema}"}],
    }


#: The schemas by name.
SCHEMAS: Final[Mapping[str, JsonObject]] = {
    "image": _IMAGE,
    "images": _IMAGES,
    "member": _MEMBER,
    "members": _listed("members", _MEMBER),
    "task": _TASK,
    "tasks": _listed("tasks", _TASK),
}
