"""The version documents (reference, section 5.1); they need no token."""

from __future__ import annotations

from typing import Any, Final

from twisted.web.iweb import IRequest

_UPDATED: Final = "2011-01-21T11:33:21Z"


def version_list(request: IRequest) -> dict[str, Any]:
    """Return what ``GET /`` shows: the versions that are served here."""
    return {"versions": [_summary(request)]}


def version_detail(request: IRequest) -> dict[str, Any]:
    """Return what ``GET /v1.1/`` shows."""
    media = {
        "base": "application/json",
        "type": "application/vnd.openstack.compute-v1.1+json",
    }
    return {"version": {**_summary(request), "media-types": [media]}}


def _summary(request: IRequest) -> dict[str, Any]:
    scheme = "https" if request.isSecure() else "http"
    host = (request.getHeader(b"host") or b"localhost").decode("ascii", "replace")
    return {
        "id": "v1.1",
        "status": "CURRENT",
        "updated": _UPDATED,
        "links": [{"rel": "self", "href": f"{scheme}://{host}/v1.1/"}],
    }
