"""The identity API, for clients that log in through bootvol: the dialects and their paths."""

from __future__ import annotations

from klein import Klein
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IRequest

from bootvol.api.embedded import v2, v3
from bootvol.api.embedded.catalog import Catalog
from bootvol.api.http import Reply, add_error_handler, public_url, route
from bootvol.api.root import Mount
from bootvol.fair_share import Paced
from bootvol.login import ILogin
from bootvol.policy import Policy


def mounts(
    login: ILogin | None, policy: Policy, region: str, most: int, clock: IReactorTime
) -> list[Mount]:
    """Return the mounts of the identity API, the longest prefixes first.

    :param login: logs users in; None if the identity plugin has no log-ins.  All these paths then
        answer 404.
    :param policy: decides who may see and revoke other users' tokens.
    :param region: the region of every endpoint in the catalog.
    :param most: maximum number of revocations of tokens at once.
    :param clock: the reactor.
    """
    if login is None:
        nothing = Klein()
        add_error_handler(nothing, v3.FAULTS)
        return [Mount((prefix,), nothing, v3.FAULTS) for prefix in (b"identity", b"v2.0")]
    catalog = Catalog(region)
    pace = Paced(clock)
    third = v3.V3(login, policy, catalog, most, pace).app
    second = v2.V2(login, catalog, pace).app
    return [
        Mount((b"identity", b"v3"), third, v3.FAULTS),
        Mount((b"identity", b"v2.0"), second, v2.FAULTS),
        Mount((b"v2.0",), second, v2.FAULTS),
        Mount((b"identity",), _versions(), v3.FAULTS),
    ]


def _versions() -> Klein:
    app = Klein()

    async def versions(request: IRequest) -> Reply:
        url = public_url(request)
        values = [v3.version(url), v2.version(url)]
        # 300, as in Keystone: the client chooses among several versions.
        return Reply({"versions": {"values": values}}, 300)

    route(app, "GET", "/", versions)
    add_error_handler(app, v3.FAULTS)
    return app
