"""Image API v2, as far as it can be read: clients find the images of all sources by their names.

It is Glance's, below ``/image``; what changes images there is not found here.  Errors look like
those of the identity API: Glance itself sends HTML, and what its clients read of JSON is this.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import urlencode

from klein import Klein
from twisted.web.iweb import IRequest

from bootvol.api.door import Door
from bootvol.api.embedded import image_views as views
from bootvol.api.embedded.v3 import fault
from bootvol.api.http import Dialect, Reply, public_url, query, route, tell_errors
from bootvol.api.lists import after
from bootvol.errors import NotFound
from bootvol.model import Caller
from bootvol.policy import Policy, Right
from bootvol.service.images import Images
from bootvol.service.rates import RateLimits

#: The most that one answer lists.
_MOST: Final = 1000


class ImageApi:
    """Answers below ``/image``.

    :param door: says who asks.
    :param policy: says who may read.
    """

    def __init__(self, door: Door, policy: Policy, images: Images, rates: RateLimits) -> None:
        self._door = door
        self._policy = policy
        self._images = images
        self._rates = rates
        self._app = Klein()
        # 300, as Glance does: a client is to choose one.
        route(self._app, "GET", "/", self._choices)
        route(self._app, "GET", "/versions", self._versions)
        route(self._app, "GET", "/v2", self._versions)
        route(self._app, "GET", "/v2/", self._versions)
        route(self._app, "GET", "/v2/images", self._list)
        route(self._app, "GET", "/v2/images/<image_id>", self._show)
        route(self._app, "GET", "/v2/schemas/<name>", self._schema)
        tell_errors(self._app, fault)

    @property
    def dialect(self) -> Dialect:
        """It as a part of the API."""
        return Dialect((b"image",), self._app, fault)

    async def _choices(self, request: IRequest) -> Reply:
        return Reply(_versions(request), 300)

    async def _versions(self, request: IRequest) -> Reply:
        return Reply(_versions(request))

    async def _list(self, request: IRequest) -> Reply:
        async with self._caller(request, "/images") as caller:
            found = await self._images.listed(caller)
        fitting = views.wanted(request, found)
        page = after(request, fitting, lambda each: each.id, _MOST)
        shown: dict[str, Any] = {
            "images": [views.image(each) for each in page],
            "first": _link(request),
            "schema": "/v2/schemas/images",
        }
        if page and page[-1] is not fitting[-1]:
            shown["next"] = _link(request, page[-1].id)
        return Reply(shown)

    async def _show(self, request: IRequest, image_id: str) -> Reply:
        async with self._caller(request, f"/images/{image_id}") as caller:
            return Reply(views.image(await self._images.find(caller, image_id)))

    async def _schema(self, request: IRequest, name: str) -> Reply:
        async with self._caller(request, f"/schemas/{name}"):
            schemas = {"image": views.IMAGE, "images": views.IMAGES}
            if name not in schemas:
                raise NotFound
            return Reply(schemas[name])

    @asynccontextmanager
    async def _caller(self, request: IRequest, path: str) -> AsyncIterator[Caller]:
        """Give the block who asks; that counts as a call of their tenant.

        :param path: as limits of rates know the call.
        :raises Unauthorized: nobody that is known.
        :raises TooManyCalls: too many calls of that address or tenant are in flight.
        :raises RateLimited: the tenant has called too often.
        :raises Forbidden: the caller may read nothing.
        """
        async with self._door.caller(request) as caller:
            self._rates.count(caller.tenant, "GET", query(request), path)
            self._policy.check(caller.roles, Right.READ)
            yield caller


def _versions(request: IRequest) -> dict[str, Any]:
    link = {"rel": "self", "href": f"{public_url(request)}/image/v2/"}
    return {"versions": [{"id": "v2.7", "status": "CURRENT", "links": [link]}]}


def _link(request: IRequest, marker: str | None = None) -> str:
    """Return the path of what a request lists: of its beginning, or of what follows a marker."""
    pairs = [(n, value) for n, given in (request.args or {}).items() for value in given]
    kept: list[tuple[bytes, bytes]] = [pair for pair in pairs if pair[0] != b"marker"]
    if marker is not None:
        kept.append((b"marker", marker.encode("utf-8")))
    return "/v2/images" + (f"?{urlencode(kept)}" if kept else "")
