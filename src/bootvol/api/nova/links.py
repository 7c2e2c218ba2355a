"""The base URI of a request, which sets the form of ids and links in the answer.

Below ``/v1.1`` ids are HP's numbers of 2012, below the later versions uuids (specification,
section 8).
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

import attrs
from twisted.web.iweb import IRequest

from bootvol.api.http import public_url
from bootvol.api.paging import Link

#: The version with numbers as ids.
NUMBERED: Final = "v1.1"


@attrs.frozen
class BaseUri:
    """The base URI of a request.

    :ivar url: URL of the API's root, without a slash at the end.
    :ivar version: first segment of the path.
    """

    url: str
    version: str
    tenant: str

    def id(self, number: int, uuid: str) -> int | str:
        """Return an id in the form of this version."""
        return number if self.version == NUMBERED else uuid

    def links(self, *path: object) -> list[Link]:
        """Return a resource's links: ``self`` in this version, and the permanent ``bookmark``."""
        below = "/".join((self.tenant, *(quote(str(part), safe="") for part in path)))
        return [
            {"rel": "self", "href": f"{self.url}/{self.version}/{below}"},
            {"rel": "bookmark", "href": f"{self.url}/{below}"},
        ]


def base_uri(request: IRequest, version: str, tenant: str) -> BaseUri:
    """Return the base URI of a request."""
    return BaseUri(public_url(request), version, tenant)
