"""How images look in Glance's API v2, and which of them a request means."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

from twisted.web.iweb import IRequest

from bootvol.api.lists import composed, text
from bootvol.errors import InvalidRequest
from bootvol.model import Image

_MOMENT: Final = "%Y-%m-%dT%H:%M:%SZ"

#: By what a list can be sorted.
_KEYS: Final = (
    "name",
    "status",
    "container_format",
    "disk_format",
    "size",
    "id",
    "created_at",
    "updated_at",
)
#: What stands in a query and is no property that images must have.
_NO_PROPERTIES: Final = {"limit", "marker", "sort", "sort_key", "sort_dir", "member_status"}

_TEXT: Final = {"type": ["null", "string"]}
_NUMBER: Final = {"type": ["null", "integer"]}
_MOMENTS: Final = {"type": ["null", "string"], "format": "date-time"}

#: The JSON schema of an image.
IMAGE: Final[dict[str, Any]] = {
    "name": "image",
    "properties": {
        "id": {"type": "string"},
        "name": _TEXT,
        "status": {"type": "string", "enum": ["active"]},
        "visibility": {"type": "string", "enum": ["public"]},
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
IMAGES: Final[dict[str, Any]] = {
    "name": "images",
    "properties": {
        "images": {"type": "array", "items": IMAGE},
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


def image(value: Image) -> dict[str, Any]:
    """Show an image, as far as bootvol knows it."""
    digest = value.digest
    changed = None
    if value.changed_at is not None:
        changed = datetime.fromtimestamp(value.changed_at, UTC).strftime(_MOMENT)
    return {
        "id": value.id,
        "name": value.name,
        "status": "active",
        # To whom it is shown at all may use it.
        "visibility": "public",
        "protected": False,
        "os_hidden": False,
        "owner": None,
        "size": value.size_bytes,
        "virtual_size": value.disk_bytes,
        "disk_format": value.format,
        "container_format": "bare",
        "checksum": digest.value if digest and digest.algorithm == "md5" else None,
        "os_hash_algo": digest.algorithm if digest else None,
        "os_hash_value": digest.value if digest else None,
        "min_disk": value.min_disk_gib,
        "min_ram": 0,
        "created_at": changed,
        "updated_at": changed,
        "tags": [],
        "self": f"/v2/images/{quote(value.id, safe='')}",
        "schema": "/v2/schemas/image",
    }


def wanted(request: IRequest, shown: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return those images that have what a request's query asks for, in the order it asks for.

    As in Glance every name in the query is a property, and an image without it is left out.

    :raises InvalidRequest: the order is by nothing that images have, or a size is no number.
    """
    asked = {name.decode("utf-8", "replace") for name in request.args or {}}
    filters = [_filter(request, name) for name in sorted(asked - _NO_PROPERTIES)]
    found = [each for each in shown if all(fits(each) for fits in filters)]
    # Sorting is stable: what counts most comes last.
    found.sort(key=lambda each: str(each["id"]))
    for key, descending in reversed(_order(request)):
        found.sort(key=lambda each: _place(each[key]), reverse=descending)
    return found


def _filter(request: IRequest, name: str) -> Callable[[Mapping[str, Any]], bool]:
    given = text(request, name.encode("utf-8")) or ""
    if name in ("size_min", "size_max"):
        if not (given.isascii() and given.isdigit()):
            raise InvalidRequest(f"{name} must be a number of bytes")
        bound = int(given[:18])
        if name == "size_min":
            return lambda each: each["size"] is not None and each["size"] >= bound
        return lambda each: each["size"] is not None and each["size"] <= bound
    if (name, given) == ("visibility", "all"):
        return lambda each: True
    if name == "tag":
        return lambda each: given in each["tags"]
    values = given.removeprefix("in:").split(",") if given.startswith("in:") else [given]
    if name in ("protected", "os_hidden"):
        values = [value.lower() for value in values]
    values = [composed(value) for value in values]
    return lambda each: name in each and _as_text(each[name]) in values


def _as_text(value: object) -> str | None:
    if isinstance(value, bool):
        return str(value).lower()
    return None if value is None else composed(str(value))


def _order(request: IRequest) -> list[tuple[str, bool]]:
    """Return the keys to sort by, each with whether it descends."""
    sort = text(request, b"sort")
    if sort is not None:
        pairs = [each.partition(":")[::2] for each in sort.split(",")]
    else:
        args = request.args or {}
        keys = [key.decode("utf-8", "replace") for key in args.get(b"sort_key", [b"created_at"])]
        ways = [way.decode("utf-8", "replace") for way in args.get(b"sort_dir", [b"desc"])]
        # One direction is all keys'.
        ways *= len(keys) if len(ways) == 1 else 1
        if len(ways) != len(keys):
            raise InvalidRequest("sort_key and sort_dir must be given as often as each other")
        pairs = list(zip(keys, ways, strict=True))
    for key, way in pairs:
        if key not in _KEYS:
            raise InvalidRequest(f"Invalid sort key: {key}. It must be one of {', '.join(_KEYS)}.")
        if way not in ("", "asc", "desc"):
            raise InvalidRequest(f"Invalid sort direction: {way}")
    # Each key once: more would only take time.
    return [(key, way != "asc") for key, way in dict(pairs).items()]


def _place(value: Any) -> tuple[bool, Any]:
    """Return what to sort a value by: what is not known comes first."""
    return (value is not None, 0 if value is None else value)
