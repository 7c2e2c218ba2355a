"""Operations of the metadata of volumes and snapshots: free texts of their owner.

From 3.15 on, answers name the state of the metadata in the header ``Etag``, and ``If-Match`` makes
a change depend on that state: two clients do not undo each other's changes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Final

from typing_extensions import TypedDict

from bootvol.api.cinder.bodies import MetadataItem, MetadataItems
from bootvol.api.cinder.context import CinderContext
from bootvol.api.cinder.words import refusal, shown
from bootvol.api.operations import Operation, operation
from bootvol.errors import InvalidRequest, NotFound
from bootvol.model import Snapshot, Volume
from bootvol.service.snapshots import Snapshots
from bootvol.service.volumes import Volumes

Items = Mapping[str, str]
Owners = Volumes | Snapshots

#: The minor version with states of metadata.
ETAGS: Final = 15


class MetadataShown(TypedDict):
    metadata: dict[str, str]


class ItemShown(TypedDict):
    meta: dict[str, str]


def _of_all(kind: str, owners: Callable[[CinderContext], Owners], /) -> tuple[Operation, ...]:
    """Return the operations of all metadata of an object.

    :param kind: the first segment of the paths: ``volumes`` or ``snapshots``.
    """
    path = f"{kind}/<number>/metadata"

    @operation(f"{kind}_show_metadata", "GET", path)
    async def show(context: CinderContext, number: int) -> MetadataShown:
        """Show all metadata."""
        found = (await owners(context).get(context.caller, number)).metadata
        if context.has(ETAGS):
            context.request.setHeader(b"Etag", _etag(found).encode("ascii"))
        return {"metadata": dict(found)}

    @operation(f"{kind}_add_metadata", "POST", path, entity="metadata")
    async def add(context: CinderContext, number: int, body: MetadataItems) -> MetadataShown:
        """Set items; other items stay."""
        changed = await owners(context).change_metadata(
            context.caller, number, lambda items: {**items, **body.root}
        )
        return {"metadata": dict(changed.metadata)}

    @operation(f"{kind}_replace_metadata", "PUT", path, entity="metadata", empty=412)
    async def replace(
        context: CinderContext, number: int, body: MetadataItems
    ) -> MetadataShown | None:
        """Replace all metadata."""

        def edit(items: Items) -> Items:
            _check_unchanged(context, items)
            return body.root

        try:
            changed = await owners(context).change_metadata(context.caller, number, edit)
        except _Changed:
            return None
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

    @operation(f"{kind}_set_item", "PUT", path, entity="meta", empty=412)
    async def put(
        context: CinderContext, number: int, key: str, body: MetadataItem
    ) -> ItemShown | None:
        """Set an item of the metadata."""
        _check_item(body.root, key)

        def edit(items: Items) -> Items:
            _check_unchanged(context, items)
            return {**items, **body.root}

        try:
            await owners(context).change_metadata(context.caller, number, edit)
        except _Changed:
            return None
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


def _check_item(items: Items, key: str) -> None:
    """Check the body of a change of one item.

    :raises InvalidRequest: if the body has another item.
    """
    if len(items) > 1:
        raise InvalidRequest(refusal("meta", items, f"{shown(items)} has too many properties"))
    if list(items) != [key]:
        raise InvalidRequest("Request body and URI mismatch")


class _Changed(Exception):
    """The metadata is not as the request requires."""


def _check_unchanged(context: CinderContext, items: Items) -> None:
    """Check the state of metadata that a request requires, in the transaction of the change.

    :raises _Changed: if the metadata has another state.
    """
    required = context.request.getHeader(b"If-Match")
    if required is None or not context.has(ETAGS):
        return
    states = {each.strip().strip(b'"') for each in required.split(b",")}
    if states.isdisjoint({b"*", _etag(items).encode("ascii")}):
        raise _Changed


def _etag(items: Items) -> str:
    """Return a name for the state of metadata."""
    content = json.dumps(dict(items), sort_keys=True)
    return sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _missing(owner: Volume | Snapshot, key: str) -> NotFound:
    kind = "Volume" if isinstance(owner, Volume) else "Snapshot"
    return NotFound(f"{kind} {owner.uuid} has no metadata with key {key}.")


OPERATIONS: Final = tuple(
    each
    for kind, owners in (("volumes", _volumes), ("snapshots", _snapshots))
    for operations in (_of_all(kind, owners), _of_one(kind, owners))
    for each in operations
)
