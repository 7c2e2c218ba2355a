"""Declares the calls of Nova's dialect: what each is, as data, beside the function that answers it.

A function that answers is a coroutine.  Its first parameter is the :class:`Ask`; those named in the
path follow by their names, as ``int`` where they are ids; the object that the body holds, read as
the pydantic model it is annotated with, is called ``asked``.  What it returns is the reply's body;
its return type, a TypedDict, is what the API's description shows.
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
from bootvol.service.goldens import Goldens
from bootvol.service.ids import Ids
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

#: What is missing where a path's id can be none, and what Nova's own calls hide the id of
#: (reference, section 2.5).
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
#: What Cinder knows of lists, and these lists do not: a client that pages by marker would get the
#: first page again and again; one that deletes all volumes of a status would delete all of them.
_NO_SUCH_LIST: Final = (
    *("marker", "all_tenants", "sort_key", "sort_dir", "sort", "changes-since"),
    *("name", "display_name", "status", "metadata", "bootable", "volume_id", "volume_type"),
    *("availability_zone", "host", "project_id", "user_id"),
)
#: What is known by uuids, too.
_KINDS: Final = {"volume_id": Kind.VOLUME, "snapshot_id": Kind.SNAPSHOT}

_SEGMENT: Final = re.compile("<([a-z_]+)>")
#: Calls of other names that do the same: a limit for the second is for the first, too.
_SAME: Final = (
    ("volumes", "os-volumes"),
    ("snapshots", "os-snapshots"),
    ("types", "os-volume-types"),
    ("os-volumes_boot", "servers"),
)

#: What is known by a number and by a uuid, and what stands for both in limits.
_OF_TWO_FORMS: Final = frozenset({"volume_id", "snapshot_id", "server_id"})
_EITHER: Final = ("0", str(UUID(int=0)))

#: The versions below which Nova's calls lie: HP's, and the one that later clients look for.
NOVA: Final = ("v1.1", "v2")


@attrs.frozen
class Core:
    """The use cases that calls are answered with."""

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
    """Who asks what of whom.

    :ivar policy: for what a call asks beyond its own right.
    :ivar place: where the request was made.
    """

    core: Core
    policy: Policy
    caller: Caller
    request: IRequest
    place: Place

    async def number(self, kind: Kind, named: int | str | None) -> int | None:
        """Return the number of what a body names by a number, digits or a uuid; None is None.

        Where it names nothing that the tenant has, this is a number that nothing has.
        """
        if named is None or isinstance(named, int):
            return named
        return await self.core.ids.number(self.caller, kind, named)

    @property
    def page(self) -> Page:
        """The part of a list that is asked for.

        :raises bootvol.errors.InvalidRequest: its limit or offset is not a number, or negative; or
            the query asks for another list, which Nova's clients take for the one that they get.
        """
        refuse(self.request, _NO_SUCH_LIST)
        return page(self.request)


@attrs.frozen(slots=False)
class Document:
    """Something that everybody may read, without a token.

    :ivar paths: from the root; they lead to the same.
    :ivar answer: of a document, it is called with the URL of the API's root, for links.
    :ivar of_url: whether a document depends on that URL.
    """

    paths: tuple[str, ...]
    answer: Callable[..., Any]
    of_url: bool = attrs.field(default=True, kw_only=True)

    @property
    def summary(self) -> str:
        """What it does, in a line."""
        return (self.answer.__doc__ or "").partition("\n")[0]

    @cached_property
    def hints(self) -> dict[str, Any]:
        """The types of the answering function's parameters, and of what it returns."""
        return get_type_hints(self.answer)

    @property
    def reply(self) -> Any:
        """The type of the reply's body; ``NoneType`` where that is empty."""
        told = self.hints["return"]
        kinds = [kind for kind in get_args(told) if kind is not NoneType]
        return kinds[0] if len(kinds) == 1 and NoneType in get_args(told) else told


@attrs.frozen(slots=False)
class Call(Document):
    """One call.

    :ivar paths: below the tenant's base URI; ``<name>`` stands for a segment.
    :ivar status: of the answer, when all went well.
    :ivar entity: the name of the object in the body; None where the body itself is that.
    :ivar paged: it lists, and takes ``limit`` and ``offset``.
    :ivar query: what else may stand in the query.
    :ivar right: what a caller needs for it.
    :ivar named: whether a 404 says what is missing; most of Nova's calls do not.
    :ivar of_rows: the answer is of nothing but rows, the tenant's, and what was asked.
    :ivar empty: the status of an answer without a body, where that is another.
    :ivar bases: the versions below which it lies; the description shows the first.
    :ivar refusals: statuses of what may go wrong, beside those that follow from the rest.
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
        """The statuses of all that may go wrong.

        Any call has a tenant, a token, a right and a rate, and an identity service that may fail.
        """
        return frozenset(
            (400, 401, 403, 413, 500, 503, *self.refusals)
            + (404,) * ("<" in self.paths[0])
            + (422,) * (self.body is not None)
        )

    @property
    def body(self) -> type[BaseModel] | None:
        """The model of the object in the body."""
        return self.hints.get("asked")

    async def run(self, ask: Ask, **path: str) -> Any:
        """Answer; return the reply's body.

        :raises bootvol.errors.BootvolError: why not.
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


#: Every call, and every document, that is declared anywhere.
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
    """Declare that a function answers a call; the parameters are :class:`Call`'s.

    :param right: None is that of what the call does by its method: it reads, or writes.
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
    """Declare that a function of the URL of the API's root returns a document.

    :param of_url: whether the document depends on that URL.
    """

    def declare(answer: Shown) -> Shown:
        DOCUMENTS.append(Document(paths, answer, of_url=of_url))
        return answer

    return declare


def _text(name: str, text: str) -> str:
    """Return a name, or an id of others, from a path.

    :raises NotFound: nothing can have it, since PostgreSQL takes no such text.
    """
    if "\0" in text:
        raise NotFound
    return text


def counted(path: str, segments: Mapping[str, str]) -> list[str]:
    """Return the paths by which limits of rates know a call.

    They come from the declaration, not from the request: no spelling leads around a limit.  What is
    known by a number and by a uuid counts as any number and as any uuid, too.

    :param path: as declared.
    :param segments: those that the request names.
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
    """Return the number of what a path names by digits or a uuid.

    :raises NotFound: nothing can have it.
    """
    if re.fullmatch("[0-9]{1,10}", text) and int(text) <= LARGEST_ID:
        return int(text)
    number = await ask.number(_KINDS[name], text) if name in _KINDS else None
    if number is None or number < 0:
        raise _MISSING[name](text)
    return number
