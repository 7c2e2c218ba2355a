"""Lists of the disks and snapshots that bootvol could take over (docs/block-storage.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NotRequired

from typing_extensions import TypedDict

from bootvol.api.cinder.context import CinderContext
from bootvol.api.cinder.lists import number_of
from bootvol.api.cinder.matching import parsed
from bootvol.api.cinder.views import Uuid, service_host
from bootvol.api.filters import text
from bootvol.api.operations import operation
from bootvol.api.paging import MOST
from bootvol.errors import InvalidRequest
from bootvol.model import GIB
from bootvol.policy import Right
from bootvol.service.adoption import KnownDisk

#: The minor version from which the API has the lists.
SINCE: Final = 8

_QUERY: Final = ("host", "sort", "sort_key", "sort_dir", "limit", "marker", "offset")


#: The name of a disk in the store of its backend.
Reference = TypedDict("Reference", {"source-name": str})


class DiskShown(TypedDict):
    """A disk that bootvol has or could take over.  The size is in GiB, rounded up.

    A list without details lacks ``reason_not_safe``, ``cinder_id`` and ``extra_info``.
    """

    reference: Reference
    size: int
    safe_to_manage: bool
    reason_not_safe: NotRequired[str | None]
    cinder_id: NotRequired[Uuid | None]
    extra_info: NotRequired[None]


class SnapshotDiskShown(DiskShown):
    """A snapshot that bootvol has or could take over."""

    source_reference: Reference | None


Disks = TypedDict("Disks", {"manageable-volumes": list[DiskShown]})
SnapshotDisks = TypedDict("SnapshotDisks", {"manageable-snapshots": list[SnapshotDiskShown]})


@operation(
    "volumes_list_manageable",
    "GET",
    "manageable_volumes",
    aliases={"os-volume-manage": "volumes_list_manageable_by_old_name"},
    query=_QUERY,
    right=Right.MANAGE,
    since=SINCE,
    refusals=(503,),
)
async def list_disks(context: CinderContext) -> Disks:
    """List the disks of a backend."""
    found = await context.services.adoptions.disks(asked_backend(context, _host(context))[0])
    return {"manageable-volumes": [_brief(each) for each in _page(context, found)]}


@operation(
    "volumes_list_manageable_details",
    "GET",
    "manageable_volumes/detail",
    aliases={"os-volume-manage/detail": "volumes_list_manageable_details_by_old_name"},
    query=_QUERY,
    right=Right.MANAGE,
    since=SINCE,
    refusals=(503,),
)
async def list_disk_details(context: CinderContext) -> Disks:
    """List the disks of a backend, with the reasons against taking them over."""
    found = await context.services.adoptions.disks(asked_backend(context, _host(context))[0])
    return {"manageable-volumes": [_detailed(each) for each in _page(context, found)]}


@operation(
    "snapshots_list_manageable",
    "GET",
    "manageable_snapshots",
    aliases={"os-snapshot-manage": "snapshots_list_manageable_by_old_name"},
    query=_QUERY,
    right=Right.MANAGE,
    since=SINCE,
    refusals=(503,),
)
async def list_snapshots(context: CinderContext) -> SnapshotDisks:
    """List the snapshots of a backend."""
    found = await context.services.adoptions.snapshots(asked_backend(context, _host(context))[0])
    page = _page(context, found)
    return {"manageable-snapshots": [_of_snapshot(each, _brief(each)) for each in page]}


@operation(
    "snapshots_list_manageable_details",
    "GET",
    "manageable_snapshots/detail",
    aliases={"os-snapshot-manage/detail": "snapshots_list_manageable_details_by_old_name"},
    query=_QUERY,
    right=Right.MANAGE,
    since=SINCE,
    refusals=(503,),
)
async def list_snapshot_details(context: CinderContext) -> SnapshotDisks:
    """List the snapshots of a backend, with the reasons against taking them over."""
    found = await context.services.adoptions.snapshots(asked_backend(context, _host(context))[0])
    page = _page(context, found)
    return {"manageable-snapshots": [_of_snapshot(each, _detailed(each)) for each in page]}


def asked_backend(context: CinderContext, named: str) -> tuple[str, str]:
    """Return the backend that a client names as HOST@BACKEND or HOST@BACKEND#POOL, and its host.

    The host is empty for a backend that all hosts reach.

    :raises InvalidRequest: if this daemon has no such backend.
    """
    backend, hosts = named_place(named)
    for host in hosts:
        if context.services.adoptions.reaches(backend, host):
            return backend, host
    raise InvalidRequest(f"Host '{named[:255]}' not found")


def named_place(named: str) -> tuple[str, Sequence[str]]:
    """Return the backend in HOST@BACKEND or HOST@BACKEND#POOL, and the hosts that HOST may mean.

    An empty host stands for all hosts.  A name of another form means no host.
    """
    service, _, pool = named.partition("#")
    host, _, backend = service.rpartition("@")
    meant = [each for each in ("", host) if service == service_host(each, backend)]
    return backend, meant if pool in ("", backend) else ()


def _host(context: CinderContext) -> str:
    found = text(context.request, b"host")
    if not found:
        raise InvalidRequest("Invalid input received: the host of the backend is missing")
    return found


_SORTED_BY: Final[Mapping[str, Callable[[KnownDisk], int | str]]] = {
    "reference": lambda each: each.disk.place,
    "size": lambda each: each.disk.size,
}


def _page(context: CinderContext, found: Sequence[KnownDisk]) -> Sequence[KnownDisk]:
    """Return the page that a request asks for.

    :raises InvalidRequest: if a parameter is not valid.
    """
    request = context.request
    parts = (text(request, b"sort") or "").split(",")
    order = [(key, way) for key, _, way in (each.partition(":") for each in parts) if key]
    if not order:
        order = [(text(request, b"sort_key") or "reference", text(request, b"sort_dir") or "")]
    ordered = sorted(found, key=lambda each: (each.disk.place, each.disk.origin or ""))
    for key, way in reversed(order[: len(_SORTED_BY)]):
        if key not in _SORTED_BY:
            raise InvalidRequest(f"Invalid sort keys passed: {key[:255]}")
        if way not in ("", "asc", "desc"):
            raise InvalidRequest(f"Invalid sort dirs passed: {way[:255]}")
        ordered.sort(key=_SORTED_BY[key], reverse=way != "asc")
    marker = text(request, b"marker")
    if marker is not None:
        place = _marked(marker)
        begin = next((n for n, each in enumerate(ordered) if each.disk.place == place), None)
        if begin is None:
            raise InvalidRequest(f"Invalid input received: marker not found: {marker[:255]}")
        ordered = ordered[begin + 1 :]
    limit = number_of(request, b"limit", "limit param must be positive")
    offset = number_of(request, b"offset", "offset must be >= 0") or 0
    return ordered[offset : offset + min(MOST if limit is None else limit, MOST)]


def _marked(marker: str) -> str:
    """Return the place that a marker names: a reference in JSON or in Python's form, or a name."""
    reference = parsed(marker)
    return marker if reference is None else str(reference.get("source-name"))


def _brief(each: KnownDisk) -> DiskShown:
    ours = each.disk.volume is not None
    return {
        "reference": {"source-name": each.disk.place},
        "size": -(-each.disk.size // GIB),
        "safe_to_manage": not ours and each.disk.obstacle is None,
    }


def _detailed(each: KnownDisk) -> DiskShown:
    ours = each.disk.volume is not None
    return {
        **_brief(each),
        "reason_not_safe": "already managed" if ours else each.disk.obstacle,
        "cinder_id": each.uuid,
        "extra_info": None,
    }


def _of_snapshot(each: KnownDisk, shown: DiskShown) -> SnapshotDiskShown:
    origin = each.disk.origin
    return {**shown, "source_reference": None if origin is None else {"source-name": origin}}


OPERATIONS = (list_disks, list_disk_details, list_snapshots, list_snapshot_details)
