"""Dialects of the API: their operations, and the hooks by which they differ from each other.

A dialect is data and functions without state, so its OpenAPI document needs no running daemon.
:class:`bootvol.api.application.Application` serves a dialect.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeAlias, TypeVar

import attrs
from pydantic import BaseModel
from twisted.web.iweb import IRequest

from bootvol.api.http import Faults, Reply
from bootvol.api.operations import Declared, Document, Operation
from bootvol.errors import BootvolError

ContextT = TypeVar("ContextT")


@attrs.frozen
class Route:
    """A path of an operation or a document.

    :ivar version: the version in the path; empty for documents.
    :ivar path: the path as declared.
    :ivar rule: the path within the dialect, in the form of Klein.
    """

    declared: Declared
    version: str
    path: str
    rule: str


@attrs.frozen
class Incoming:
    """A request for an operation, before its admission.

    :ivar version: the version in the request's path.
    :ivar path: the path as declared.
    :ivar tenant: the tenant in the request's path; None if the path has none.
    :ivar segments: the values of the declared path's names.
    """

    request: IRequest
    operation: Operation
    version: str
    path: str
    tenant: str | None
    segments: Mapping[str, str]


async def _as_sent(context: object, operation: Operation, name: str, text: str) -> object:
    return text


async def _of_the_caller(context: ContextT, incoming: Incoming) -> ContextT:
    return context


def _no_body(request: IRequest, operation: Operation, model: type[BaseModel]) -> BaseModel:
    raise NotImplementedError(f"the dialect of {operation.path} reads no bodies")


def _unchanged(operation: Operation, error: BootvolError) -> BootvolError:
    return error


def _always(context: object, minor: int) -> bool:
    return True


def _no_reply(request: IRequest) -> Reply | None:
    return None


@attrs.frozen(kw_only=True, eq=False)
class Dialect(Generic[ContextT]):
    """A dialect of the API.  The hooks take the context of the dialect's own handlers.

    :ivar prefixes: the equivalent first segments of all paths of the dialect, without a slash at
        either end.  The OpenAPI document shows the first.
    :ivar template: the path of an operation within the dialect, with the fields ``version`` and
        ``path``.  The segment ``<tenant>`` must be the tenant of the caller's token.
    :ivar versions: the versions that have the operations.
    :ivar groups: the operations and documents, by their tags in the OpenAPI document.
    :ivar faults: the form of errors.
    :ivar refusals: returns the statuses of an operation's possible failures, for the OpenAPI
        document.
    :ivar has: returns if a request's minor version is a given one or later. The API hides
        an operation from requests with an earlier minor version.
    :ivar on_behalf: returns the context for a request's handler: with another caller, if the caller
        acts for the tenant of the object in the path.
    :ivar read_body: reads the request body of an operation into the operation's model, and raises
        an error in the words of the dialect.
    :ivar argument: converts a segment of the path to an argument of the handler.  Here a dialect
        maps the ids that its clients know to the numbers of the rows.
    :ivar id_type: the type of an id in a path, for the OpenAPI document.
    :ivar reword: returns the error that the client gets for an error of the handler.
    :ivar page_parameters: the parameters of lists with pages.
    :ivar cache_key: returns the inputs of a reply that depends only on the tenant's rows: the
        tenant, and all that the handler reads from the request, except for the segments of the
        path.  None if the dialect has no such operations.
    :ivar negotiate: returns the reply to a path that belongs to no version; None for a 404.
    """

    prefixes: tuple[str, ...] = ("",)
    template: str = "/{path}"
    versions: tuple[str, ...] = ("",)
    groups: Mapping[str, Sequence[Declared]]
    faults: Faults
    refusals: Callable[[Operation], frozenset[int]]
    has: Callable[[ContextT, int], bool] = _always
    on_behalf: Callable[[ContextT, Incoming], Awaitable[ContextT]] = _of_the_caller
    read_body: Callable[[IRequest, Operation, type[BaseModel]], BaseModel] = _no_body
    argument: Callable[[ContextT, Operation, str, str], Awaitable[object]] = _as_sent
    id_type: Any = str
    reword: Callable[[Operation, BootvolError], BootvolError] = _unchanged
    page_parameters: tuple[str, ...] = ("limit", "marker")
    cache_key: Callable[[ContextT, Operation], tuple[Hashable, ...]] | None = None
    negotiate: Callable[[IRequest], Reply | None] = _no_reply

    @property
    def declared(self) -> Iterator[Declared]:
        """All operations and documents."""
        for group in self.groups.values():
            yield from group

    @property
    def operations(self) -> Iterator[Operation]:
        """All operations."""
        return (each for each in self.declared if isinstance(each, Operation))

    def routes(self) -> Iterator[Route]:
        """Yield all paths of all operations and documents."""
        for each in self.declared:
            for version in self.versions_of(each):
                for path in each.paths:
                    yield Route(each, version, path, self.rule(each, version, path))

    def versions_of(self, declared: Declared) -> Sequence[str]:
        """Return the versions that have an operation; one empty version for a document."""
        if isinstance(declared, Operation):
            return self.versions if declared.versions is None else declared.versions
        return ("",)

    def rule(self, declared: Declared, version: str, path: str) -> str:
        """Return the path of an operation or a document within the dialect."""
        if isinstance(declared, Document):
            return path
        return self.template.format(version=version, path=path)


#: A dialect with a context of any type.
AnyDialect: TypeAlias = Dialect[Any]
