"""The names that all callers may filter lists by: those of Cinder's own configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from typing_extensions import TypedDict

from bootvol.api.cinder.context import CinderContext
from bootvol.api.filters import text
from bootvol.api.operations import operation

#: The names by the kind of the listed objects.
OPEN: Final[Mapping[str, tuple[str, ...]]] = {
    "volume": (
        "name",
        "status",
        "metadata",
        "bootable",
        "migration_status",
        "availability_zone",
        "group_id",
        "size",
        "created_at",
        "updated_at",
        "consumes_quota",
    ),
    "backup": ("name", "status", "volume_id"),
    "snapshot": (
        "name",
        "status",
        "volume_id",
        "metadata",
        "availability_zone",
        "consumes_quota",
    ),
    "group": ("name",),
    "group_snapshot": ("name", "status", "group_id"),
    "attachment": ("volume_id", "status", "instance_id", "attach_status"),
    "message": ("resource_uuid", "resource_type", "event_id", "request_id", "message_level"),
    "pool": ("name", "volume_type"),
    "volume_type": ("is_public", "extra_specs"),
}


class FiltersShown(TypedDict):
    """The names of one kind."""

    resource: str
    filters: list[str]


class AllFilters(TypedDict):
    resource_filters: list[FiltersShown]


@operation("filters_list_filters", "GET", "resource_filters", since=33, query=("resource",))
async def list_filters(context: CinderContext) -> AllFilters:
    """List the names that all callers may filter lists by."""
    kind = text(context.request, b"resource")
    return {
        "resource_filters": [
            {"resource": each, "filters": list(names)}
            for each, names in OPEN.items()
            if kind in (None, each)
        ]
    }


OPERATIONS = (list_filters,)
