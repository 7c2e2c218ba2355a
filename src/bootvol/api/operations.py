"""Declarations of operations, as data beside the functions that handle the operations.

A handler is a coroutine function.  The first parameter is the context of the request, whose class
the dialect chooses.  The names in the path follow as parameters, with the type ``int`` if they are
ids.  The parameter ``body`` is the object in the request body; its annotation is the pydantic model
of the object.  The handler returns the body of the reply.  The return type, a TypedDict, becomes
the schema in the OpenAPI document.

A module of operations ends with a tuple of them, ``OPERATIONS``.  The dialect lists these tuples.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from enum import Enum
from functools import cached_property
from types import NoneType
from typing import Any, Final, get_args, get_type_hints

import attrs
from pydantic import BaseModel
from twisted.internet.defer import Deferred

from bootvol.api.http import Reply
from bootvol.jsons import JsonObject
from bootvol.policy import Right

#: The media type of most bodies.
JSON: Final = "application/json"

Handler = Callable[..., Coroutine[Deferred[object], object, Any]]
DocumentHandler = Callable[[str], Any]


class Admission(Enum):
    """The authentication that an operation requires."""

    #: A valid token of a project: the door admits the caller, and rate limits and rights apply.
    DOOR = "door"
    #: A valid token that bootvol itself has issued, also without a project.
    SESSION = "session"
    #: No token: the operation is a log-in.
    NOBODY = "nobody"


@attrs.frozen(slots=False, eq=False)
class Declared:
    """The common part of a document and an operation.

    :ivar paths: operation ids of the OpenAPI document, by equivalent paths; ``<name>`` stands for a
        segment.  The paths are relative to the dialect.
    :ivar handler: the handling function.
    :ivar status: HTTP status of a successful reply.
    """

    paths: Mapping[str, str]
    handler: Callable[..., Any]
    status: int

    @property
    def path(self) -> str:
        """The first path."""
        return next(iter(self.paths))

    @property
    def summary(self) -> str:
        """The first line of the handler's docstring."""
        return (self.handler.__doc__ or "").partition("\n")[0]

    @cached_property
    def hints(self) -> JsonObject:
        """The types of the handler's parameters and of its result."""
        return get_type_hints(self.handler)

    @property
    def reply(self) -> Any:
        """The type of the reply's body; ``NoneType`` if the body is empty.

        A handler that chooses the status of its reply returns a :class:`Reply`, with any object.
        """
        returned = self.hints["return"]
        if returned is Reply:
            return JsonObject
        kinds = [kind for kind in get_args(returned) if kind is not NoneType]
        return kinds[0] if len(kinds) == 1 and NoneType in get_args(returned) else returned


@attrs.frozen(slots=False, eq=False)
class Document(Declared):
    """A document that everybody may read, without a token.

    :ivar of_url: whether the document depends on the URL of the API's root.  The handler takes
        this URL, for links.
    """

    of_url: bool


@attrs.frozen(slots=False, eq=False)
class Operation(Declared):
    """A declared operation.

    :ivar entity: the name of the object in the request body; None for the body itself.
    :ivar paged: whether the operation is a list with pages, in the style of its dialect.
    :ivar query: other parameters of the query.
    :ivar headers: the request headers that the operation reads, beside the token.
    :ivar admission: the required authentication.
    :ivar right: the right that a caller needs; None if the admission checks no right.
    :ivar named: whether a 404 names the missing object; most of Nova's operations do not name it.
    :ivar of_rows: whether the reply depends only on the tenant's rows and on the request.
    :ivar empty: the status of a reply without a body, if that status differs from ``status``.
    :ivar versions: the versions that have the operation; None for all versions of the dialect.  The
        OpenAPI document shows the first.
    :ivar refusals: statuses of failures, in addition to the statuses that the dialect derives.
    :ivar since: the minor version from which a dialect with minor versions has the operation.
    :ivar takes: the media type of the request body.
    :ivar also_takes: the models of the body in other media types, by media type.
    :ivar streamed: whether the handler reads the body itself, as the bytes arrive: see
        :mod:`bootvol.api.uploads`.
    :ivar gives: the media type of the reply's body.  If that type is not JSON, the handler itself
        writes the body, and returns whether the reply has one.  A reply without a body has the
        status ``empty``.
    """

    method: str
    entity: str | None
    paged: bool
    query: tuple[str, ...]
    headers: tuple[str, ...]
    admission: Admission
    right: Right | None
    named: bool
    of_rows: bool
    refusals: tuple[int, ...]
    empty: int | None
    versions: tuple[str, ...] | None
    since: int
    takes: str
    streamed: bool
    gives: str
    also_takes: Mapping[str, type[BaseModel]]

    @property
    def body(self) -> type[BaseModel] | None:
        """The model of the object in the request body; None if the operation takes no body."""
        return self.hints.get("body")


def operation(
    name: str,
    method: str,
    path: str,
    /,
    *,
    aliases: Mapping[str, str] | None = None,
    status: int = 200,
    entity: str | None = None,
    paged: bool = False,
    query: tuple[str, ...] = (),
    headers: tuple[str, ...] = (),
    admission: Admission = Admission.DOOR,
    right: Right | None = None,
    named: bool = False,
    of_rows: bool = False,
    refusals: tuple[int, ...] = (),
    empty: int | None = None,
    versions: tuple[str, ...] | None = None,
    since: int = 0,
    takes: str = JSON,
    streamed: bool = False,
    gives: str = JSON,
    also_takes: Mapping[str, type[BaseModel]] | None = None,
) -> Callable[[Handler], Operation]:
    """Declare the handler of an operation; the other parameters are those of :class:`Operation`.

    :param name: the operation id of ``path``.
    :param aliases: operation ids of equivalent paths, by path.
    :param right: the needed right; None for the right to read (GET) or to write (other methods), if
        the operation is admitted at the door.
    """
    if right is None and admission is Admission.DOOR:
        right = Right.READ if method == "GET" else Right.WRITE

    def declare(handler: Handler) -> Operation:
        return Operation(
            {path: name, **(aliases or {})},
            handler,
            status,
            method,
            entity,
            paged,
            query,
            headers,
            admission,
            right,
            named,
            of_rows,
            refusals,
            empty,
            versions,
            since,
            takes,
            streamed,
            gives,
            also_takes or {},
        )

    return declare


def document(
    name: str,
    path: str,
    /,
    *,
    aliases: Mapping[str, str] | None = None,
    status: int = 200,
    of_url: bool = True,
) -> Callable[[DocumentHandler], Document]:
    """Declare the handler of a document; the other parameters are those of :class:`Document`.

    :param name: the operation id of ``path``.
    :param aliases: operation ids of equivalent paths, by path.
    """

    def declare(handler: DocumentHandler) -> Document:
        return Document({path: name, **(aliases or {})}, handler, status, of_url)

    return declare
