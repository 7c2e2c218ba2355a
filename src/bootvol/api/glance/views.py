"""JSON views of images in Glance's API v2, with the filters and orders of lists."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal
from urllib.parse import quote

from twisted.web.iweb import IRequest
from typing_extensions import TypedDict

from bootvol.api.filters import composed, text
from bootvol.api.times import to_seconds
from bootvol.errors import InvalidRequest
from bootvol.jsons import JsonObject
from bootvol.model import Image

#: The sort keys of a list.
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
#: Parameters of a query that are not properties of images.
_NO_PROPERTIES: Final = {"limit", "marker", "sort", "sort_key", "sort_dir", "member_status"}
#: Parameters of the query of a list, beside the page.
QUERY: Final = (
    *("name", "status", "visibility", "disk_format", "container_format", "tag", "os_hidden"),
    *("protected", "size_min", "size_max", "sort", "sort_key", "sort_dir", "member_status"),
)

_TEXT: Final = {"type": ["null", "string"]}
_NUMBER: Final = {"type": ["null", "integer"]}
_MOMENTS: Final = {"type": ["null", "string"], "format": "date-time"}

#: The JSON schema of an image.
IMAGE: Final[JsonObject] = {
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
IMAGES: Final[JsonObject] = {
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


class ImageShown(TypedDict):
    """An image, with the properties that bootvol knows."""

    id: str
    name: str
    status: Literal["active"]
    visibility: Literal["public"]
    protected: Literal[False]
    os_hidden: Literal[False]
    owner: None
    size: int | None
    virtual_size: int | None
    disk_format: str | None
    container_format: str
    checksum: str | None
    os_hash_algo: str | None
    os_hash_value: str | None
    min_disk: int
    min_ram: int
    created_at: str | None
    updated_at: str | None
    tags: list[str]
    self: str
    schema: str


def _moment(value: Image) -> str | None:
    if value.changed_at is None:
        return None
    return to_seconds(value.changed_at)


#: The shown properties of an image, as far as bootvol knows them.
_SHOWN: Final[Mapping[str, Callable[[Image], Any]]] = {
    "id": lambda each: each.id,
    "name": lambda each: each.name,
    "status": lambda _: "active",
    # Everybody who sees the image may use it.
    "visibility": lambda _: "public",
    "protected": lambda _: False,
    "os_hidden": lambda _: False,
    "owner": lambda _: None,
    "size": lambda each: each.size_bytes,
    "virtual_size": lambda each: each.disk_bytes,
    "disk_format": lambda each: each.format,
    "container_format": lambda _: "bare",
    "checksum": lambda each: (
        each.digest.value if each.digest and each.digest.algorithm == "md5" else None
    ),
    "os_hash_algo": lambda each: each.digest.algorithm if each.digest else None,
    "os_hash_value": lambda each: each.digest.value if each.digest else None,
    "min_disk": lambda each: each.min_disk_gib,
    "min_ram": lambda _: 0,
    "created_at": _moment,
    "updated_at": _moment,
    "tags": lambda _: [],
    "self": lambda each: f"/v2/images/{quote(each.id, safe='')}",
    "schema": lambda _: "/v2/schemas/image",
}


def _second(value: Image) -> int | None:
    """Return a sort key for the shown time; formatting the time of each image takes too long."""
    return None if value.changed_at is None else int(value.changed_at)


_SORTED: Final = {**_SHOWN, "created_at": _second, "updated_at": _second}


def image(value: Image) -> ImageShown:
    """Return the view of an image, as far as bootvol knows the properties."""
    shown: Any = {name: show(value) for name, show in _SHOWN.items()}
    return shown  # type: ignore[no-any-return]


def select(request: IRequest, found: Sequence[Image]) -> list[Image]:
    """Return the images that match a request's query, in the requested order.

    As in Glance, every name in the query is a property.  Images without the property are left out.

    A list may have thousands of images, so this function renders none.

    :raises InvalidRequest: if a sort key or direction is invalid, or if a size is not a number.
    """
    names = {name.decode("utf-8", "replace") for name in request.args or {}}
    filters = [_filter(request, name) for name in sorted(names - _NO_PROPERTIES)]
    # Sorting is stable, so sort by the most significant key last.
    left = [each for each in found if all(fits(each) for fits in filters)]
    left.sort(key=lambda each: each.id)
    for key, descending in reversed(_order(request)):
        left.sort(key=_place(_SORTED[key]), reverse=descending)
    return left


def _filter(request: IRequest, name: str) -> Callable[[Image], bool]:
    given = text(request, name.encode("utf-8")) or ""
    if name in ("size_min", "size_max"):
        if not (given.isascii() and given.isdigit()):
            raise InvalidRequest(f"{name} must be a number of bytes")
        bound = int(given[:18])
        if name == "size_min":
            return lambda each: each.size_bytes is not None and each.size_bytes >= bound
        return lambda each: each.size_bytes is not None and each.size_bytes <= bound
    if (name, given) == ("visibility", "all"):
        return lambda each: True
    if name == "tag":
        return lambda each: given in _SHOWN["tags"](each)
    if name not in _SHOWN:
        return lambda each: False
    values = given.removeprefix("in:").split(",") if given.startswith("in:") else [given]
    if name in ("protected", "os_hidden"):
        values = [value.lower() for value in values]
    show = _SHOWN[name]
    fitting = frozenset(map(composed, values))
    return lambda each: _as_text(show(each)) in fitting


def _as_text(value: object) -> str | None:
    if isinstance(value, bool):
        return str(value).lower()
    return None if value is None else composed(str(value))


def _order(request: IRequest) -> list[tuple[str, bool]]:
    """Return the sort keys, each with a flag for descending order."""
    sort = text(request, b"sort")
    if sort is not None:
        pairs = [each.partition(":")[::2] for each in sort.split(",")]
    else:
        args = request.args or {}
        keys = [key.decode("utf-8", "replace") for key in args.get(b"sort_key", [b"created_at"])]
        ways = [way.decode("utf-8", "replace") for way in args.get(b"sort_dir", [b"desc"])]
        # A single direction applies to all keys.
        ways *= len(keys) if len(ways) == 1 else 1
        if len(ways) != len(keys):
            raise InvalidRequest("sort_key and sort_dir must be given as often as each other")
        pairs = list(zip(keys, ways, strict=True))
    for key, way in pairs:
        if key not in _KEYS:
            raise InvalidRequest(f"Invalid sort key: {key}. It must be one of {', '.join(_KEYS)}.")
        if way not in ("", "asc", "desc"):
            raise InvalidRequest(f"Invalid sort direction: {way}")
    # Use each key once: repeated keys would only take time.
    return [(key, way != "asc") for key, way in dict(pairs).items()]


def _place(value: Callable[[Image], object]) -> Callable[[Image], tuple[bool, object]]:
    """Return a sort key for a property; images with an unknown value come first."""

    def place(each: Image) -> tuple[bool, object]:
        found = value(each)
        return (found is not None, 0 if found is None else found)

    return place
