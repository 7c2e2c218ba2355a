"""Operations of the metadata of volumes and snapshots: free texts of their owner."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from typing_extensions import TypedDict

from bootvol.api.cinder.bodies import MetadataItem, MetadataItems
from bootvol.api.cinder.context import CinderContext
from bootvol.api.operations import Operation, operation
from bootvol.errors import InvalidRequest, NotFound
from bootvol.model import Snapshot, Volume
from bootvol.service.snapshots import Snapshots
from bootvol.service.volumes import Volumes

Items = Mapping[str, str]
Owners = Volumes | Snapshots


class MetadataShown(TypedDict):
    metadata: dict[str, str]


class ItemShown(TypedDict):
    meta: dict[str, str]


def _of_all(kind: str, owners: Callable[[CinderContext], Owners], /) -> tuple[Operation, ...]:
    """Return the operations of all metadata of an object.

    :param kind: the first segment of the paths: ``volumes`` or ``snapshots``.
    """
    path = f"{kind}/<number>/metadata"

    @operation(f"{kind}_show_metadata", "GET", path, of_rows=True)
    async def show(context: CinderContext, number: int) -> MetadataShown:
        """Show all metadata."""
        return {"metadata": dict((await owners(context).get(context.caller, number)).metadata)}

    @operation(f"{kind}_add_metadata", "POST", path, entity="metadata")
    async def add(context: CinderContext, number: int, body: MetadataItems) -> MetadataShown:
        """Set items; other items stay."""
        changed = await owners(context).change_metadata(
            context.caller, number, lambda items: {**items, **body.root}
        )
        return {"metadata": dict(changed.metadata)}

    @operation(f"{kind}_replace_metadata", "PUT", path, entity="metadata")
    async def replace(context: CinderContext, number: int, body: MetadataItems) -> MetadataShown:
        """Replace all metadata."""
        changed = await owners(context).change_metadata(context.caller, number, lambda _: body.root)
        return {"metadata": dict(changed.metadata)}

    return (show, add, replace)


def _of_one(kind: str, owners: Callable[[CinderContext], Owners], /) -> tuple[Operation, ...]:
    """Return the operations of one item, with the parameters of :func:`_of_all`."""
    path = f"{kind}/<number>/metadata/<key>"

    @operation(f"{kind}_show_item", "GET", path)
    async def show(context: CinderContext, number: int, key: str) -> ItemShown:
        """Show an item of the metadata."""
        owner = await owners(context).get(context.caller, number)
        if key not in owner.metadata:
            raise _missing(owner, key)
        return {"meta": {key: owner.metadata[key]}}

    @operation(f"{kind}_set_item", "PUT", path, entity="meta")
    async def put(context: CinderContext, number: int, key: str, body: MetadataItem) -> ItemShown:
        """Set an item of the metadata."""
        if list(body.root) != [key]:
            raise InvalidRequest("Request body and URI mismatch")
        await owners(context).change_metadata(
            context.caller, number, lambda items: {**items, **body.root}
        )
        return {"meta": body.root}

    @operation(f"{kind}_delete_item", "DELETE", path)
    async def delete(context: CinderContext, number: int, key: str) -> None:
        """Delete an item of the metadata."""
        owner = await owners(context).get(context.caller, number)

        def without(items: Items) -> Items:
            if key not in items:
                raise _missing(owner, key)
            return {name: value for name, value in items.items() if name != key}

        await owners(context).change_metadata(context.caller, number, without)

    return (show, put, delete)


def _volumes(context: CinderContext) -> Owners:
    return context.services.volumes


def _snapshots(context: CinderContext) -> Owners:
    return context.services.snapshots


def _missing(owner: Volume | Snapshot, key: str) -> NotFound:
    kind = "Volume" if isinstance(owner, Volume) else "Snapshot"
    return NotFound(f"{kind} {owner.uuid} has no metadata with key {key}.")


OPERATIONS: Final = tuple(
    each
    for kind, owners in (("volumes", _volumes), ("snapshots", _snapshots))
    for operations in (_of_all(kind, owners), _of_one(kind, owners))
    for each in operations
)
