"""Nova's dialect on Klein: registers the declared calls, and answers errors with faults."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

import orjson
from klein import Klein
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web.http import MULTIPLE_CHOICE
from twisted.web.iweb import IRequest
from werkzeug.exceptions import NotFound as UnknownPath

from bootvol.api.door import Door
from bootvol.api.http import Reply, answer, public_url, query, told, write

# The import of each module declares its calls.
from bootvol.api.nova import (  # noqa: F401
    attachments,
    bootable,
    cinder,
    extensions,
    flavors,
    goldens,
    images,
    keypairs,
    limits,
    openapi,
    quotas,
    servers,
    snapshots,
    versions,
    volume_types,
    volumes,
)
from bootvol.api.nova.cache import Answers
from bootvol.api.nova.calls import CALLS, DOCUMENTS, Ask, Call, Core, Document, counted
from bootvol.api.nova.faults import fault
from bootvol.api.nova.links import place
from bootvol.errors import MalformedUrl
from bootvol.policy import Policy

#: Maximum number of cached answers of a document, one for each URL of the API's root. The cache
#: needs a limit because clients may send any Host.
_URLS: Final = 16


class NovaApi:
    """The Klein application of Nova's dialect.

    :param door: authenticates requests.
    :param policy: decides the caller's rights.
    :param answers: caches the answers that depend on rows alone.
    """

    def __init__(self, door: Door, policy: Policy, core: Core, answers: Answers) -> None:
        self.app = Klein()
        self._door = door
        self._policy = policy
        self._core = core
        self._answers = answers
        self._register()

    def _register(self) -> None:
        for document in DOCUMENTS:
            for path in document.paths:
                self.app.route(path, methods=["GET"], endpoint=path)(_showing(document))
        for call in CALLS:
            for base in call.bases:
                for path in call.paths:
                    self.app.route(
                        f"/{base}/<tenant>/{path}",
                        methods=[call.method],
                        endpoint=f"{call.method} {base} {path}",
                    )(self._answering(call, base, path))
        self.app.handle_errors(Exception)(self._failed)

    def _answering(self, call: Call, base: str, path: str) -> Any:
        """Return a route that runs a call to its end, even if the client disconnects."""

        async def answered(request: IRequest, tenant: str, segments: dict[str, str]) -> Reply:
            async with self._door.caller(request) as caller:
                if caller.tenant != tenant:
                    raise MalformedUrl
                names = counted(path, segments)
                self._core.rates.count(tenant, call.method, query(request), *names)
                self._policy.check(caller.roles, call.right)
                where = place(request, base, tenant)
                ask = Ask(self._core, self._policy, caller, request, where)
                return await self._run(call, ask, segments)

        def route(request: IRequest, tenant: str, **segments: str) -> Deferred[bytes]:
            return answer(request, answered(request, tenant, segments))

        return route

    async def _run(self, call: Call, ask: Ask, segments: dict[str, str]) -> Reply:
        if not call.of_rows:
            body = await call.run(ask, **segments)
            bare = body is None and call.empty is not None
            return Reply(body, call.empty if bare and call.empty else call.status)
        page = tuple(ask.page.values()) if call.paged else ()
        key = (ask.place, call.answer, *segments.values(), *page)
        return Reply(await self._answers.get(key, lambda: call.run(ask, **segments)), call.status)

    def _failed(self, request: IRequest, failure: Failure) -> bytes:
        """Answer with the fault of the exception; for unknown versions with the choices (300)."""
        if failure.check(UnknownPath) and not versions.is_version(request.postpath[0]):
            return write(request, Reply(versions.choices(request), MULTIPLE_CHOICE))
        return told(request, failure, fault)


def _showing(document: Document) -> Callable[[IRequest], bytes]:
    """Return a route that shows a document, with a cache of the rendered JSON."""

    @lru_cache(_URLS)
    def rendered(url: str) -> bytes:
        return orjson.dumps(document.answer(url))

    return lambda request: write(
        request, Reply(rendered(public_url(request) if document.of_url else ""))
    )
