"""Glance's image API v2 as a dialect, below ``/image``.

Glance's operations that are not here answer 404.  Errors have the form of the identity API: Glance
itself sends HTML, and its clients understand this form of JSON.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import attrs

from bootvol.api.admission import Callers, refusals, segments_filled
from bootvol.api.application import Application
from bootvol.api.context import RequestContext, Services
from bootvol.api.dialects import Dialect
from bootvol.api.door import Door
from bootvol.api.faults import TITLED_FAULTS
from bootvol.api.glance import changes, data, definitions, images, imports, members, tasks
from bootvol.api.glance.bodies import read_body
from bootvol.api.openapi import describe
from bootvol.api.operations import document
from bootvol.api.statuses import status_of
from bootvol.errors import BootvolError, ImageUnusable, UnsupportedContentType
from bootvol.jsons import JsonObject
from bootvol.policy import Policy

_ABOUT: Final = """\
The images of all sources, and images that projects bring, in the form of Glance's API v2.
Every other name in the query of a list filters by the property of that name; every path may end in
`.json`."""


@document("openapi_describe_images", "/openapi", of_url=False)
def show_description(_url: str) -> JsonObject:
    """Describe the image API in OpenAPI 3.1."""
    return description()


def _status(error: BootvolError) -> int:
    """Return the HTTP status of an error, as Glance chooses the statuses."""
    if isinstance(error, UnsupportedContentType):
        return 415
    return 403 if isinstance(error, ImageUnusable) else status_of(error)


FAULTS: Final = attrs.evolve(TITLED_FAULTS, status=_status)

GLANCE: Final = Dialect[RequestContext](
    prefixes=("image",),
    template="/v2/{path}",
    groups={
        "openapi": (show_description,),
        "images": (
            *images.OPERATIONS,
            *changes.OPERATIONS,
            *data.OPERATIONS,
            *imports.OPERATIONS,
            *tasks.OPERATIONS,
            *members.OPERATIONS,
            *definitions.OPERATIONS,
        ),
    },
    faults=FAULTS,
    refusals=refusals,
    read_body=read_body,
)


@cache
def description() -> JsonObject:
    """Return the OpenAPI document of the dialect.

    All callers get the same cached object, so they must not change it.
    """
    return describe("bootvol: images", _ABOUT, GLANCE)


def application(door: Door, policy: Policy, services: Services) -> Application[RequestContext]:
    """Return the application of the image API.

    :param door: authenticates requests.
    :param policy: decides who may read.
    """
    callers = Callers(door, policy, services, RequestContext, segments_filled)
    return Application(GLANCE, callers.admit)
