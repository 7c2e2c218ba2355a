"""Declarations of the calls of Nova's dialect, as data beside the functions that answer them.

An answering function is a coroutine.  The first parameter is the :class:`Ask`.  The names in the
path follow as parameters, with the type ``int`` if they are ids.  The parameter ``asked`` is the
object in the request body; its annotation is the pydantic model of the object.  The function
returns the body of the reply.  The return type, a TypedDict, becomes the schema in the OpenAPI
document.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Mapping
from functools import cached_property
from itertools import product
from types import NoneType
from typing import Any, Final, TypeVar, get_args, get_type_hints
from uuid import UUID

import attrs
from pydantic import BaseModel
from twisted.web.iweb import IRequest

from bootvol.api.http import read_json
from bootvol.api.nova import bodies
from bootvol.api.nova.filters import refuse
from bootvol.api.nova.links import Place
from bootvol.api.nova.paging import Page, page
from bootvol.errors import (
    AttachmentNotFound,
    NotFound,
    ServerNotFound,
    SnapshotNotFound,
    VolumeNotFound,
    VolumeTypeNotFound,
)
from bootvol.lifecycle import Kind
from bootvol.model import LARGEST_ID, Caller
from bootvol.policy import Policy, Right
from bootvol.service.attachments import Attachments
from bootvol.service.ids import Ids
from bootvol.service.image_cache import Goldens
from bootvol.service.images import Images
from bootvol.service.keypairs import KeyPairs
from bootvol.service.quotas import Quotas
from bootvol.service.rates import RateLimits
from bootvol.service.servers import Servers
from bootvol.service.snapshots import Snapshots
from bootvol.service.volume_types import VolumeTypes
from bootvol.service.volumes import Volumes

Answer = Callable[..., Coroutine[Any, Any, Any]]
Declared = TypeVar("Declared", bound=Answer)
Shown = TypeVar("Shown", bound=Callable[[str], Any])

#: The errors of invalid ids in a path, and the errors that Nova's own calls report without the id
#: (specification, section 2.5).
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

_SEGMENT: Final = re.compile("<([a-z_]+)>")
#: Pairs of equivalent calls. A rate limit for the second applies to the first, too.
_SAME: Final = (
    ("volumes", "os-volumes"),
    ("snapshots", "os-snapshots"),
    ("types", "os-volume-types"),
    ("os-volumes_boot", "servers"),
)

#: Names of path segments that may be a number or a uuid, and examples of both forms for rate
#: limits.
_OF_TWO_FORMS: Final = frozenset({"volume_id", "snapshot_id", "server_id"})
_EITHER: Final = ("0", str(UUID(int=0)))

#: The versions with Nova's calls: HP's version, and the version of later clients.
NOVA: Final = ("v1.1", "v2")


@attrs.frozen
class Core:
    """The use cases behind the calls."""

    volumes: Volumes
    snapshots: Snapshots
    attachments: Attachments
    servers: Servers
    images: Images
    goldens: Goldens
    types: VolumeTypes
    quotas: Quotas
    rates: RateLimits
    key_pairs: KeyPairs
    ids: Ids


@attrs.frozen
class Ask:
    """The context of a request: the use cases, the policy, the caller, the request and its place.

    :ivar policy: decides the rights that a call needs in addition to its declared right.
    :ivar place: the base URI of the request.
    """

    core: Core
    policy: Policy
    caller: Caller
    request: IRequest
    place: Place

    async def number(self, kind: Kind, named: int | str | None) -> int | None:
        """Return the number of the object that a body names by a number, digits or a uuid.

        :returns: None if ``named`` is None.  If the tenant has no such object, the result is a
            number without an object.
        """
        if named is None or isinstance(named, int):
            return named
        return await self.core.ids.number(self.caller, kind, named)

    @property
    def page(self) -> Page:
        """The requested page of a list.

        :raises bootvol.errors.InvalidRequest: if the limit or the offset is not a number or is
            negative, or if the query has a filter or an order that these lists do not support.
            Nova's clients would take the plain list for the filtered one.
        """
        refuse(self.request, _NO_SUCH_LIST)
        return page(self.request)


@attrs.frozen(slots=False)
class Document:
    """A document that everybody may read, without a token.

    :ivar paths: equivalent paths, from the root.
    :ivar answer: the answering function.  A document's function takes the URL of the API's root,
        for links.
    :ivar of_url: whether the document depends on the URL of the API's root.
    """

    paths: tuple[str, ...]
    answer: Callable[..., Any]
    of_url: bool = attrs.field(default=True, kw_only=True)

    @property
    def summary(self) -> str:
        """The first line of the answering function's docstring."""
        return (self.answer.__doc__ or "").partition("\n")[0]

    @cached_property
    def hints(self) -> dict[str, Any]:
        """The types of the answering function's parameters and of its result."""
        return get_type_hints(self.answer)

    @property
    def reply(self) -> Any:
        """The type of the reply's body; ``NoneType`` if the body is empty."""
        told = self.hints["return"]
        kinds = [kind for kind in get_args(told) if kind is not NoneType]
        return kinds[0] if len(kinds) == 1 and NoneType in get_args(told) else told


@attrs.frozen(slots=False)
class Call(Document):
    """A declared call.

    :ivar paths: paths below the tenant's base URI; ``<name>`` stands for a segment.
    :ivar status: HTTP status of a successful answer.
    :ivar entity: the name of the object in the request body; None for the body itself.
    :ivar paged: whether the call is a list with ``limit`` and ``offset``.
    :ivar query: other parameters of the query.
    :ivar right: the right that a caller needs.
    :ivar named: whether a 404 names the missing object; most of Nova's calls do not name it.
    :ivar of_rows: whether the answer depends only on the tenant's rows and on the request.
    :ivar empty: the status of an answer without a body, if that status differs from ``status``.
    :ivar bases: the versions that have the call; the OpenAPI document shows the first.
    :ivar refusals: statuses of failures, in addition to the statuses that :attr:`faults` derives.
    """

    method: str
    status: int
    entity: str | None
    paged: bool
    query: tuple[str, ...]
    right: Right
    named: bool
    of_rows: bool
    refusals: tuple[int, ...]
    empty: int | None
    bases: tuple[str, ...]

    @property
    def faults(self) -> frozenset[int]:
        """The statuses of all possible failures.

        Any call may fail because of the tenant, the token, a missing right, a rate limit, or the
        identity service.
        """
        return frozenset(
            (400, 401, 403, 413, 500, 503, *self.refusals)
            + (404,) * ("<" in self.paths[0])
            + (422,) * (self.body is not None)
        )

    @property
    def body(self) -> type[BaseModel] | None:
        """The model of the object in the request body; None if the call takes no body."""
        return self.hints.get("asked")

    async def run(self, ask: Ask, **path: str) -> Any:
        """Run the answering function, and return the body of the reply.

        :raises bootvol.errors.BootvolError: if the request is invalid or the call fails.
        """
        arguments: dict[str, Any] = {}
        try:
            for name, text in path.items():
                if self.hints[name] is int:
                    arguments[name] = await _number(ask, name, text)
                else:
                    arguments[name] = _text(name, text)
            if self.body is not None:
                arguments["asked"] = bodies.read(read_json(ask.request), self.entity, self.body)
            return await self.answer(ask, **arguments)
        except _HIDDEN:
            if self.named:
                raise
            raise NotFound from None


#: All declared calls and documents.
CALLS: Final[list[Call]] = []
DOCUMENTS: Final[list[Document]] = []


def call(
    method: str,
    *paths: str,
    status: int = 200,
    entity: str | None = None,
    paged: bool = False,
    query: tuple[str, ...] = (),
    right: Right | None = None,
    named: bool = False,
    of_rows: bool = False,
    refusals: tuple[int, ...] = (),
    empty: int | None = None,
    bases: tuple[str, ...] = NOVA,
) -> Callable[[Declared], Declared]:
    """Declare the answering function of a call; the parameters are those of :class:`Call`.

    :param right: the needed right; None for the right to read (GET) or to write (other methods).
    """
    needed = right or (Right.READ if method == "GET" else Right.WRITE)

    def declare(answer: Declared) -> Declared:
        CALLS.append(
            Call(
                paths,
                answer,
                method,
                status,
                entity,
                paged,
                query,
                needed,
                named,
                of_rows,
                refusals,
                empty,
                bases,
            )
        )
        return answer

    return declare


def document(*paths: str, of_url: bool = True) -> Callable[[Shown], Shown]:
    """Declare the function of a document; the function takes the URL of the API's root.

    :param of_url: whether the document depends on the URL.
    """

    def declare(answer: Shown) -> Shown:
        DOCUMENTS.append(Document(paths, answer, of_url=of_url))
        return answer

    return declare


def _text(name: str, text: str) -> str:
    """Return a name, or an id from another service, from a path.

    :raises NotFound: if the text has a zero character, because PostgreSQL stores no such text.
    """
    if "\0" in text:
        raise NotFound
    return text


def counted(path: str, segments: Mapping[str, str]) -> list[str]:
    """Return the paths of a call that rate limits are matched with.

    The paths come from the declaration, not from the request, so no other spelling avoids a limit.
    An object with a number and a uuid also counts as any number and as any uuid.

    :param path: the declared path.
    :param segments: the values of the path's names in the request.
    """
    same = [new + path[len(old) :] for old, new in _SAME if f"{path}/".startswith(f"{old}/")]
    forms = [
        (text, *_EITHER) if name in _OF_TWO_FORMS else (text,) for name, text in segments.items()
    ]
    spelt = [dict(zip(segments, each, strict=True)) for each in product(*forms)]
    return [
        "/" + _SEGMENT.sub(lambda found, texts=texts: texts[found[1]], each)  # type: ignore[misc]
        for each in (path, *same)
        for texts in spelt
    ]


async def _number(ask: Ask, name: str, text: str) -> int:
    """Return the number of the object that a path names by digits or a uuid.

    :raises NotFound: if no object can have the number, or if the tenant has no object with the
        uuid.
    """
    if re.fullmatch("[0-9]{1,10}", text) and int(text) <= LARGEST_ID:
        return int(text)
    number = await ask.number(_KINDS[name], text) if name in _KINDS else None
    if number is None or number < 0:
        raise _MISSING[name](text)
    return number
