"""The context of a request in Nova's dialect, and the hooks for its bodies, ids and errors."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
from typing import Final

import attrs
from pydantic import BaseModel
from twisted.web.iweb import IRequest

from bootvol.api.context import RequestContext, Services
from bootvol.api.filters import refuse
from bootvol.api.http import read_json
from bootvol.api.nova import bodies
from bootvol.api.nova.links import BaseUri, base_uri
from bootvol.api.operations import Operation
from bootvol.api.paging import Page, page
from bootvol.errors import (
    AttachmentNotFound,
    BootvolError,
    NotFound,
    ServerNotFound,
    SnapshotNotFound,
    VolumeNotFound,
    VolumeTypeNotFound,
)
from bootvol.lifecycle import Kind
from bootvol.model import LARGEST_ID, Caller
from bootvol.policy import Policy
from bootvol.service.ids import NONE

#: The errors of invalid ids in a path, and the errors that Nova's own operations report without the
#: id (specification, section 2.5).
_MISSING: Final[dict[str, Callable[[str], NotFound]]] = {
    "volume_id": VolumeNotFound,
    "snapshot_id": SnapshotNotFound,
    "type_id": VolumeTypeNotFound,
}
_HIDDEN: Final = (
    VolumeNotFound,
    SnapshotNotFound,
    ServerNotFound,
    AttachmentNotFound,
    VolumeTypeNotFound,
)
#: Parameters of Cinder's lists that these lists refuse. If they were ignored, a client that pages
#: by marker would get the first page again and again, and a client that deletes all volumes with
#: some status would delete all volumes.
_NO_SUCH_LIST: Final = (
    *("marker", "all_tenants", "sort_key", "sort_dir", "sort", "changes-since"),
    *("name", "display_name", "status", "metadata", "bootable", "volume_id", "volume_type"),
    *("availability_zone", "host", "project_id", "user_id"),
)
#: Names of path segments that may be uuids, too.
_KINDS: Final = {"volume_id": Kind.VOLUME, "snapshot_id": Kind.SNAPSHOT}


@attrs.frozen
class NovaContext(RequestContext):
    """The context of a request in Nova's dialect.

    :ivar base: the base URI of the request.
    """

    base: BaseUri

    @classmethod
    def of(
        cls, services: Services, policy: Policy, caller: Caller, request: IRequest, version: str
    ) -> NovaContext:
        """Return the context of a request below the base URI of the caller's tenant."""
        base = base_uri(request, version, caller.tenant)
        return cls(services, policy, caller, request, version, base)

    async def volume_number(self, named: int | str) -> int:
        """Return the number of the volume that a body names.

        :param named: a number, digits, a uuid, or -1 for an invalid id.
        :raises NotFound: if the id is invalid, or if the tenant has no volume with the uuid.
        """
        number = await self.number(Kind.VOLUME, named)
        if number is None or number < 0:
            raise NotFound if named == NONE else VolumeNotFound(named)
        return number

    @property
    def page(self) -> Page:
        """The requested page of a list.

        :raises bootvol.errors.InvalidRequest: if the limit or the offset is not a number or is
            negative, or if the query has a filter or an order that these lists do not support.
            Nova's clients would take the plain list for the filtered one.
        """
        refuse(self.request, _NO_SUCH_LIST)
        return page(self.request)


def cache_key(context: NovaContext, operation: Operation) -> tuple[Hashable, ...]:
    """Return the inputs of a reply that depends only on rows, without the segments of the path."""
    return (context.base, *(context.page.values() if operation.paged else ()))


def read_body(request: IRequest, operation: Operation, model: type[BaseModel]) -> BaseModel:
    """Validate the body of a request.

    :raises bootvol.errors.BootvolError: if the body is not JSON or does not fit the model.
    """
    return bodies.read(read_json(request), operation.entity, model)


def reword(operation: Operation, error: BootvolError) -> BootvolError:
    """Return the error for the client: most operations do not name the missing object."""
    return error if operation.named or not isinstance(error, _HIDDEN) else NotFound()


async def argument(context: NovaContext, operation: Operation, name: str, text: str) -> object:
    """Return a handler's argument for a segment of the path: a number for an id, or the text.

    :raises NotFound: if no object can have the id, or if the text has a zero character, because
        PostgreSQL stores no such text.
    """
    if operation.hints[name] is int:
        return await _number(context, name, text)
    if "\0" in text:
        raise NotFound
    return text


async def _number(context: NovaContext, name: str, text: str) -> int:
    """Return the number of the object that a path names by digits or a uuid.

    :raises NotFound: if no object can have the number, or if the tenant has no object with the
        uuid.
    """
    if re.fullmatch("[0-9]{1,10}", text) and int(text) <= LARGEST_ID:
        return int(text)
    number = await context.number(_KINDS[name], text) if name in _KINDS else None
    if number is None or number < 0:
        raise _MISSING[name](text)
    return number
