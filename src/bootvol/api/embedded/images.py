"""Glance's image API v2, read only, below ``/image``: the images of all sources.

Clients find images here by name.  Glance's calls that change images answer 404.  Errors have the
form of the identity API: Glance itself sends HTML, and its clients understand this form of JSON.
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
from bootvol.api.embedded.v3 import FAULTS
from bootvol.api.http import Reply, add_error_handler, public_url, query, route
from bootvol.api.lists import after
from bootvol.api.root import Mount
from bootvol.errors import NotFound
from bootvol.model import Caller
from bootvol.policy import Policy, Right
from bootvol.service.images import Images
from bootvol.service.rates import RateLimits

#: Maximum number of images in one answer.
_MOST: Final = 1000


class ImageApi:
    """The image API, below ``/image``.

    :param door: authenticates requests.
    :param policy: decides who may read.
    """

    def __init__(self, door: Door, policy: Policy, images: Images, rates: RateLimits) -> None:
        self._door = door
        self._policy = policy
        self._images = images
        self._rates = rates
        self._app = Klein()
        # 300, as in Glance: the client chooses a version.
        route(self._app, "GET", "/", self._choices)
        route(self._app, "GET", "/versions", self._versions)
        route(self._app, "GET", "/v2", self._versions)
        route(self._app, "GET", "/v2/", self._versions)
        route(self._app, "GET", "/v2/images", self._list)
        route(self._app, "GET", "/v2/images/<image_id>", self._show)
        route(self._app, "GET", "/v2/schemas/<name>", self._schema)
        add_error_handler(self._app, FAULTS)

    @property
    def mount(self) -> Mount:
        """The mount below the API's root."""
        return Mount((b"image",), self._app, FAULTS)

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
        """Yield the caller of a request, and count a call of the caller's tenant.

        :param path: the path for rate limits.
        :raises Unauthorized: if the request has no valid token.
        :raises TooManyCalls: if too many calls of the address or tenant are in flight.
        :raises RateLimited: if the tenant has exceeded a rate limit.
        :raises Forbidden: if the caller has no right to read.
        """
        async with self._door.caller(request) as caller:
            self._rates.count(caller.tenant, "GET", query(request), path)
            self._policy.check(caller.roles, Right.READ)
            yield caller


def _versions(request: IRequest) -> dict[str, Any]:
    link = {"rel": "self", "href": f"{public_url(request)}/image/v2/"}
    return {"versions": [{"id": "v2.7", "status": "CURRENT", "links": [link]}]}


def _link(request: IRequest, marker: str | None = None) -> str:
    """Return the path of a list's first page, or of the page after a marker."""
    pairs = [(n, value) for n, given in (request.args or {}).items() for value in given]
    kept: list[tuple[bytes, bytes]] = [pair for pair in pairs if pair[0] != b"marker"]
    if marker is not None:
        kept.append((b"marker", marker.encode("utf-8")))
    return "/v2/images" + (f"?{urlencode(kept)}" if kept else "")
