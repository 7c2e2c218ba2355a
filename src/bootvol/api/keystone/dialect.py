"""The identity API as dialects: both versions, and the list of the versions."""

from __future__ import annotations

from functools import cache
from typing import Final

from klein import Klein
from twisted.internet.interfaces import IReactorTime

from bootvol.api.application import Application
from bootvol.api.dialects import Dialect
from bootvol.api.faults import TITLED_FAULTS
from bootvol.api.http import add_error_handler
from bootvol.api.keystone.catalog import Catalog
from bootvol.api.keystone.context import IdentityContext, IdentityServices, Sessions, refusals
from bootvol.api.keystone.v2 import V2
from bootvol.api.keystone.v3 import V3
from bootvol.api.keystone.versions import Versions, version_2, version_3
from bootvol.api.openapi import describe
from bootvol.api.operations import document
from bootvol.api.root import Mount
from bootvol.fair_share import Paced
from bootvol.jsons import JsonObject
from bootvol.login import ILogin
from bootvol.policy import Policy
from bootvol.service.inflight import InFlight

_ABOUT: Final = """\
The identity API v3 and v2.0 of Keystone, for clients that log in to bootvol.
`/identity/v2.0/…` is the same as `/v2.0/…`; every path may end in `.json`."""


# 300, as in Keystone: the client chooses among several versions.
@document("identity_list_versions", "/", status=300)
def list_versions(url: str) -> Versions:
    """List the versions of the identity API."""
    return {"versions": {"values": [version_3(url), version_2(url)]}}


@document("openapi_describe_identity", "/openapi", of_url=False)
def show_description(_url: str) -> JsonObject:
    """Describe the identity API in OpenAPI 3.1."""
    return description()


_VERSIONS: Final = Dialect[IdentityContext](
    prefixes=("identity",),
    groups={"openapi": (show_description,), "identity versions": (list_versions,)},
    faults=TITLED_FAULTS,
    refusals=refusals,
)
#: The dialects, the longest prefixes first.
KEYSTONE: Final = (V3, V2, _VERSIONS)


@cache
def description() -> JsonObject:
    """Return the OpenAPI document of all dialects of the identity API.

    All callers get the same cached object, so they must not change it.
    """
    return describe("bootvol: identity", _ABOUT, *KEYSTONE)


def mounts(
    login: ILogin | None, policy: Policy, region: str, most: int, clock: IReactorTime
) -> list[Mount]:
    """Return the applications of the identity API, the longest prefixes first.

    :param login: logs users in; None if the identity plugin has no log-ins.  All these paths then
        answer 404.
    :param policy: decides who may see and revoke other users' tokens.
    :param region: the region of every endpoint in the catalog.
    :param most: maximum number of revocations of tokens at once.
    :param clock: the reactor.
    """
    if login is None:
        nothing = Klein()
        add_error_handler(nothing, TITLED_FAULTS)
        return [Mount((prefix,), nothing, TITLED_FAULTS) for prefix in (b"identity", b"v2.0")]
    services = IdentityServices(login, policy, Catalog(region), InFlight(most))
    admit = Sessions(services, Paced(clock)).admit
    return [mount for each in KEYSTONE for mount in Application(each, admit).mounts]
