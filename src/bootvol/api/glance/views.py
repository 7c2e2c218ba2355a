"""JSON views of images in Glance's API v2, with the filters and orders of lists."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from operator import attrgetter
from typing import Final, cast
from urllib.parse import quote

from pydantic import ConfigDict
from twisted.web.iweb import IRequest
from typing_extensions import TypedDict

from bootvol.api.filters import composed, text
from bootvol.api.glance.described import Described
from bootvol.api.times import to_seconds
from bootvol.errors import InvalidRequest
from bootvol.model import MemberStatus, Visibility

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
#: The values of ``member_status``.
_ANSWERS: Final = ("all", *MemberStatus)
#: Parameters of the query of a list, beside the page.
QUERY: Final = (
    *("name", "status", "visibility", "disk_format", "container_format", "tag", "os_hidden"),
    *("protected", "size_min", "size_max", "sort", "sort_key", "sort_dir", "member_status"),
)


class ImageShown(TypedDict):
    """An image, with the properties that bootvol knows, and the owner's own properties."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    id: str
    name: str | None
    status: str
    visibility: str
    protected: bool
    os_hidden: bool
    owner: str | None
    size: int | None
    virtual_size: int | None
    disk_format: str | None
    container_format: str | None
    checksum: str | None
    os_hash_algo: str | None
    os_hash_value: str | None
    min_disk: int
    min_ram: int
    created_at: str | None
    updated_at: str | None
    tags: list[str]
    file: str
    self: str
    schema: str


#: The names of the shown properties that are fields of a description.
_FIELDS: Final = (
    *("id", "name", "status", "visibility", "protected", "os_hidden", "owner", "size"),
    *("virtual_size", "disk_format", "container_format", "checksum", "os_hash_algo"),
    *("os_hash_value", "min_disk", "min_ram"),
)


def _moment(value: float | None) -> str | None:
    return None if value is None else to_seconds(value)


def _path(value: Described) -> str:
    return f"/v2/images/{quote(value.id, safe='')}"


#: The shown properties of an image, as far as bootvol knows them.
_SHOWN: Final[Mapping[str, Callable[[Described], object]]] = {
    **{name: attrgetter(name) for name in _FIELDS},
    "created_at": lambda each: _moment(each.created_at),
    "updated_at": lambda each: _moment(each.updated_at),
    "tags": lambda each: list(each.tags),
    "file": lambda each: f"{_path(each)}/file",
    "self": _path,
    "schema": lambda _: "/v2/schemas/image",
}
#: The names of properties that an owner cannot give to further properties.
RESERVED: Final = frozenset((*_SHOWN, "locations", "direct_url", "stores", "deleted_at"))


def _second(value: float | None) -> int | None:
    """Return a sort key for the shown time; formatting the time of each image takes too long."""
    return None if value is None else int(value)


_SORTED: Final[Mapping[str, Callable[[Described], object]]] = {
    **_SHOWN,
    "created_at": lambda each: _second(each.created_at),
    "updated_at": lambda each: _second(each.updated_at),
}


def image(value: Described) -> ImageShown:
    """Return the view of an image."""
    shown = {name: show(value) for name, show in _SHOWN.items()}
    return cast("ImageShown", {**value.properties, **value.stated, **shown})


def select(request: IRequest, found: Sequence[Described]) -> list[Described]:
    """Return the images that match a request's query, in the requested order.

    As in Glance, every name in the query is a property.  Images without the property are left out.
    Hidden images, and images that are not listed for the caller, are shown only on demand.  Images
    that other tenants share with the caller have to be accepted, unless ``member_status`` says
    otherwise.

    A list may have thousands of images, so this function renders none.

    :raises InvalidRequest: if a sort key or direction is invalid, or if a size is not a number.
    """
    names = {name.decode("utf-8", "replace") for name in request.args or {}}
    filters = [_filter(request, name) for name in sorted(names - _NO_PROPERTIES)]
    filters.append(_fit_for_member(request, names))
    if "os_hidden" not in names:
        filters.append(lambda each: not each.os_hidden)
    # Sorting is stable, so sort by the most significant key last.
    left = [each for each in found if all(fits(each) for fits in filters)]
    left.sort(key=lambda each: each.id)
    for key, descending in reversed(_order(request)):
        left.sort(key=_place(_SORTED[key]), reverse=descending)
    return left


def _fit_for_member(request: IRequest, names: Collection[str]) -> Callable[[Described], bool]:
    """Return the filter by the images' listing for the caller, and by the caller's membership.

    :param names: the names in the query.
    :raises InvalidRequest: if the query has an unknown status of members.
    """
    status = text(request, b"member_status") or "accepted"
    if status not in _ANSWERS:
        raise InvalidRequest(f"Invalid status: {status}. It must be one of {', '.join(_ANSWERS)}.")

    def fits(each: Described) -> bool:
        if each.answer:
            return status in ("all", each.answer)
        if each.listed or "visibility" in names:
            return True
        return "owner" in names and each.visibility != Visibility.COMMUNITY

    return fits


def _filter(request: IRequest, name: str) -> Callable[[Described], bool]:
    given = text(request, name.encode("utf-8")) or ""
    if name in ("size_min", "size_max"):
        if not (given.isascii() and given.isdigit()):
            raise InvalidRequest(f"{name} must be a number of bytes")
        bound = int(given[:18])
        if name == "size_min":
            return lambda each: each.size is not None and each.size >= bound
        return lambda each: each.size is not None and each.size <= bound
    if (name, given) == ("visibility", "all"):
        return lambda each: True
    if name == "tag":
        tags = {value.decode("utf-8", "replace") for value in (request.args or {})[b"tag"]}
        return lambda each: tags.issubset(each.tags)
    values = given.removeprefix("in:").split(",") if given.startswith("in:") else [given]
    if name in ("protected", "os_hidden"):
        values = [value.lower() for value in values]
    fitting = frozenset(map(composed, values))
    if name not in _SHOWN:
        return lambda each: _as_text(each.properties.get(name)) in fitting
    show = _SHOWN[name]
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


def _place(value: Callable[[Described], object]) -> Callable[[Described], tuple[bool, object]]:
    """Return a sort key for a property; images with an unknown value come first."""

    def place(each: Described) -> tuple[bool, object]:
        found = value(each)
        return (found is not None, 0 if found is None else found)

    return place
