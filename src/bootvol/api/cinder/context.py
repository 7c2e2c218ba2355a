"""The context of a request in Cinder's dialect, and the hooks for its bodies, ids and errors."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Final

import attrs
from pydantic import BaseModel
from twisted.web.iweb import IRequest

from bootvol.api.cinder import quota_words, taken, words
from bootvol.api.cinder.default_type import DEFAULT
from bootvol.api.cinder.matching import flag
from bootvol.api.cinder.microversions import HEADER, Microversion, of_request
from bootvol.api.context import RequestContext, Services
from bootvol.api.dialects import Incoming
from bootvol.api.filters import text
from bootvol.api.http import public_url, query, read_json
from bootvol.api.operations import Operation
from bootvol.api.paging import Link
from bootvol.errors import (
    BootvolError,
    HoldProtected,
    HostTaken,
    ImageNotFound,
    InvalidImageRef,
    NotFound,
    QuotaExceeded,
    SnapshotBusy,
    SnapshotNotFound,
    VolumeBusy,
    VolumeNotFound,
)
from bootvol.lifecycle import Kind
from bootvol.model import Caller
from bootvol.policy import Policy, Right
from bootvol.service.ids import NONE

#: The path of the dialect below the API's root.
ROOT: Final = "volume"
#: The kinds of objects by the first segment of their paths, and the errors of missing ones.
_KINDS: Final[dict[str, tuple[Kind, Callable[[str], NotFound]]]] = {
    "volumes": (Kind.VOLUME, VolumeNotFound),
    "snapshots": (Kind.SNAPSHOT, SnapshotNotFound),
}
#: Hints for a scheduler stand beside the object of a body.  bootvol has no scheduler.
_HINTS: Final = frozenset({"OS-SCH-HNT:scheduler_hints"})
#: Cinder's words before the message of an error.
_PREFIXES: Final[tuple[tuple[type[BootvolError], str], ...]] = (
    (VolumeBusy, "Invalid volume: "),
    (SnapshotBusy, "Invalid snapshot: "),
)


@attrs.frozen
class CinderContext(RequestContext):
    """The context of a request in Cinder's dialect.

    :ivar microversion: the microversion that the request asks for.
    :ivar sees_places: whether the caller may see where volumes are stored.
    :ivar project: the project of the caller's token. An operator acts for other projects, too: see
        :func:`on_behalf`.
    """

    microversion: Microversion
    sees_places: bool
    project: str

    @classmethod
    def of(
        cls, services: Services, policy: Policy, caller: Caller, request: IRequest, version: str
    ) -> CinderContext:
        """Return the context of a request; set the headers of the answer.

        :raises InvalidRequest: if the request asks for a malformed microversion.
        :raises bootvol.errors.ApiVersionUnsupported: if the API does not have the microversion.
        """
        request.setHeader(b"Vary", HEADER)
        microversion = of_request(request)
        request.setHeader(HEADER, f"volume {microversion}".encode("ascii"))
        sees = policy.grants(caller.roles, Right.CONNECTION)
        project = caller.tenant
        return cls(services, policy, caller, request, version, microversion, sees, project)

    @property
    def operates(self) -> bool:
        """True if the caller may see the objects of all projects."""
        return self.may(Right.ALL_TENANTS)

    @property
    def trusted(self) -> bool:
        """True if the request comes from a service that runs servers, such as Nova."""
        return self.policy.grants(self.caller.service_roles, Right.FOREIGN_SERVERS)

    def has(self, minor: int) -> bool:
        """Return whether the microversion is 3.``minor`` or later."""
        return self.microversion >= Microversion(3, minor)

    def may(self, right: Right) -> bool:
        """Return whether the caller has a right."""
        return self.policy.grants(self.caller.roles, right)

    def links(self, *path: str) -> list[Link]:
        """Return the links of an object in the caller's project."""
        root, below = f"{public_url(self.request)}/{ROOT}", "/".join((self.project, *path))
        return [
            {"rel": "self", "href": f"{root}/v3/{below}"},
            {"rel": "bookmark", "href": f"{root}/{below}"},
        ]

    async def row(self, kind: str, uuid: str) -> int:
        """Return the number of the object with a uuid.

        :param kind: the first segment of the object's paths: ``volumes`` or ``snapshots``.
        :raises NotFound: if the caller's project has no such object.
        """
        rows, missing = _KINDS[kind]
        # Digits name a number in other dialects, and nothing here.
        number = NONE if uuid.isdigit() else await self.services.ids.number(self.caller, rows, uuid)
        if number == NONE:
            raise missing(uuid)
        return number


async def on_behalf(context: CinderContext, incoming: Incoming) -> CinderContext:
    """Return the context in which an operator acts for the project of the object in the path.

    Cinder's operators may show, change and delete the volumes and snapshots of all projects by
    their ids.
    """
    first, _, rest = incoming.path.partition("/")
    if first not in _KINDS or not rest.startswith("<") or not context.operates:
        return context
    rows, _ = _KINDS[first]
    uuid = incoming.segments[rest.partition("/")[0].strip("<>")]
    owner = await context.services.ids.owner(rows, uuid)
    if owner is None or owner == context.caller.tenant:
        return context
    return attrs.evolve(context, caller=attrs.evolve(context.caller, tenant=owner))


def everywhere(context: CinderContext) -> bool:
    """Return whether a list shows the objects of all projects.

    Members may ask for all projects, and get their own, as in Cinder.

    :raises InvalidRequest: if the caller may see all projects, and the parameter is not a boolean.
    """
    asked_for = text(context.request, b"all_tenants")
    return context.operates and flag(asked_for or "false", "all_tenants")


def cache_key(context: CinderContext, operation: Operation) -> tuple[Hashable, ...]:
    """Return the inputs of a reply that depends only on rows, without the segments of the path."""
    return (
        context.caller.tenant,
        context.project,
        public_url(context.request),
        context.microversion,
        context.sees_places,
        context.may(Right.ALL_TENANTS),
        context.may(Right.VOLUME_TYPES),
        query(context.request),
    )


def read_body(request: IRequest, operation: Operation, model: type[BaseModel]) -> BaseModel:
    """Validate the body of a request.

    :raises bootvol.errors.BootvolError: if the body is not JSON or does not fit the model.
    """
    return words.read(
        read_json(request), operation.entity, model, _HINTS, of_request(request).minor
    )


def reword(operation: Operation, error: BootvolError) -> BootvolError:
    """Return the error for the client, in Cinder's words."""
    if isinstance(error, ImageNotFound):
        return InvalidImageRef("Invalid image identifier or unable to access requested image.")
    if isinstance(error, HoldProtected | HostTaken):
        return taken.protected(error)
    if isinstance(error, QuotaExceeded) and error.excess is not None:
        return QuotaExceeded(quota_words.of(error.excess), error.excess)
    prefix = next((text for kind, text in _PREFIXES if isinstance(error, kind)), "")
    if not prefix or error.message.startswith(prefix):
        return error
    return type(error)(prefix + error.message)


async def argument(context: CinderContext, operation: Operation, name: str, text: str) -> object:
    """Return a handler's argument for a segment of the path: a number for an id, or the text.

    :raises NotFound: if no object of the caller's project has the id, or if the text has a zero
        character, because PostgreSQL stores no such text.
    """
    if operation.hints[name] is not int:
        if "\0" in text:
            raise NotFound
        return text
    kind = operation.path.partition("/")[0]
    if kind == "types":
        return (
            0
            if text == DEFAULT.uuid
            else (await context.services.types.of_uuid(text, context.sees_types_of)).id
        )
    return await context.row(kind, text)
