"""A dialect on Klein: registers the declared operations, and answers errors with faults."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from functools import lru_cache
from typing import Any, Final, Generic, TypeVar

import attrs
import orjson
from klein import Klein
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from werkzeug.exceptions import NotFound as UnknownPath
from werkzeug.routing import RequestRedirect

from bootvol.api.cache import Answers
from bootvol.api.dialects import Dialect, Incoming
from bootvol.api.http import Reply, answer, public_url, render_error, with_slash, write
from bootvol.api.operations import JSON, Document, Operation
from bootvol.api.root import Mount, StreamedPath
from bootvol.errors import BootvolError, NotFound

ContextT = TypeVar("ContextT")

#: Admits a request, and yields the handler's context.
Admit = Callable[[Incoming], AbstractAsyncContextManager[ContextT]]

#: Maximum number of cached answers of a document, one for each URL of the API's root. The cache
#: needs a limit because clients may send any Host.
_URLS: Final = 16


class Application(Generic[ContextT]):
    """The Klein application of a dialect.

    :param admit: admits requests.
    :param answers: caches the answers that depend on rows alone; None if the dialect has none.
    :ivar klein: the application.
    """

    def __init__(
        self, dialect: Dialect[ContextT], admit: Admit[ContextT], answers: Answers | None = None
    ) -> None:
        self.klein = Klein()
        self._dialect = dialect
        self._admit = admit
        self._answers = answers
        for each in dialect.routes():
            if isinstance(each.declared, Operation):
                self._register(each.declared, each.version, each.path, each.rule)
            elif isinstance(each.declared, Document):
                self.klein.route(each.rule, methods=["GET"], endpoint=each.rule)(
                    _showing(each.declared)
                )
        self.klein.handle_errors(Exception)(self._failed)

    @property
    def mounts(self) -> list[Mount]:
        """The application at each of the dialect's prefixes."""
        return [
            Mount(
                tuple(prefix.encode("ascii").split(b"/")) if prefix else (),
                self.klein,
                self._dialect.faults,
                [
                    StreamedPath(each.declared.method.encode("ascii"), _segments(each.rule))
                    for each in self._dialect.routes()
                    if isinstance(each.declared, Operation) and each.declared.streamed
                ],
            )
            for prefix in self._dialect.prefixes
        ]

    def _register(self, operation: Operation, version: str, path: str, rule: str) -> None:
        """Register a route that runs an operation to its end, even if the client disconnects."""

        async def answered(incoming: Incoming) -> Reply:
            async with self._admit(incoming) as context:
                return await self._run(incoming, await self._dialect.on_behalf(context, incoming))

        @self.klein.route(
            rule, methods=[operation.method], endpoint=f"{operation.method} {version} {path}"
        )
        def route(request: IRequest, tenant: str | None = None, **segments: str) -> Deferred[bytes]:
            written = {name: with_slash(segment) for name, segment in segments.items()}
            owner = tenant and with_slash(tenant)
            incoming = Incoming(request, operation, version, path, owner, written)
            return answer(request, answered(incoming))

    async def _run(self, incoming: Incoming, context: ContextT) -> Reply:
        """Return the reply of an operation.  The handler's result becomes JSON."""
        operation, cache_key = incoming.operation, self._dialect.cache_key
        if not operation.of_rows or cache_key is None or self._answers is None:
            body = await self._handle(incoming, context)
            if isinstance(body, Reply):
                return body
            if operation.gives != JSON:
                # The handler has written the body, if any.
                return Reply(None, operation.status if body else operation.empty or 204)
            bare = body is None and operation.empty is not None
            return Reply(body, operation.empty if bare and operation.empty else operation.status)
        key = (
            operation,
            *cache_key(context, operation),
            *incoming.segments.values(),
            _suffix(incoming),
        )
        found = await self._answers.get(key, lambda: self._handle(incoming, context))
        return Reply(found, operation.status)

    async def _handle(self, incoming: Incoming, context: ContextT) -> Any:
        """Run a handler, and return the body of the reply.

        :raises bootvol.errors.BootvolError: if the request is invalid or the operation fails.
        """
        named = _named_with_suffix(incoming)
        if named is not None:
            with suppress(NotFound):
                return await self._call(named, context)
        return await self._call(incoming, context)

    async def _call(self, incoming: Incoming, context: ContextT) -> Any:
        dialect, operation = self._dialect, incoming.operation
        arguments: dict[str, object] = {}
        try:
            if not dialect.has(context, operation.since):
                raise NotFound
            for name, text in incoming.segments.items():
                arguments[name] = await dialect.argument(context, operation, name, text)
            if operation.body is not None:
                arguments["body"] = dialect.read_body(incoming.request, operation, operation.body)
            return await operation.handler(context, **arguments)
        except BootvolError as error:
            reworded = dialect.reword(operation, error)
            if reworded is error:
                raise
            raise reworded from None

    def _failed(self, request: IRequest, failure: Failure) -> bytes:
        """Answer with the fault of the exception, or with the dialect's reply to unknown paths."""
        # A path without the slash of its route is unknown, too.
        unknown = failure.check(UnknownPath, RequestRedirect)
        if unknown and (reply := self._dialect.negotiate(request)) is not None:
            return write(request, reply)
        return render_error(request, failure, self._dialect.faults)


def _segments(rule: str) -> tuple[bytes | None, ...]:
    """Return the segments of a rule; None for a name."""
    segments = rule.strip("/").split("/")
    return tuple(None if each.startswith("<") else each.encode("ascii") for each in segments)


def _suffix(incoming: Incoming) -> str:
    return str(getattr(incoming.request, "suffix", ""))


def _named_with_suffix(incoming: Incoming) -> Incoming | None:
    """Return the request with the suffix of its path as a part of the last name.

    None for a path without a suffix, or with no free name at its end.  Also for requests with a
    body, because these may make an object of that name.
    """
    operation, suffix = incoming.operation, _suffix(incoming)
    if not suffix or operation.body is not None or not incoming.path.endswith(">"):
        return None
    last = incoming.path.rpartition("<")[2].removesuffix(">")
    if operation.hints.get(last) is not str:
        return None
    segments = {**incoming.segments, last: incoming.segments[last] + suffix}
    return attrs.evolve(incoming, segments=segments)


def _showing(document: Document) -> Callable[[IRequest], bytes]:
    """Return a route that shows a document, with a cache of the rendered JSON.

    A document without URLs is made now: OpenAPI's documents take a tenth of a second each, and
    nobody should wait so long while the daemon serves.
    """

    @lru_cache(_URLS)
    def rendered(url: str) -> bytes:
        return orjson.dumps(document.handler(url))

    if not document.of_url:
        rendered("")
    return lambda request: write(
        request,
        Reply(rendered(public_url(request) if document.of_url else ""), document.status),
    )
