"""The identity API, for where people log in through bootvol: what is served below which path."""

from __future__ import annotations

from klein import Klein
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IRequest

from bootvol.api.embedded import v2, v3
from bootvol.api.embedded.catalog import Catalog
from bootvol.api.http import Dialect, Reply, public_url, route, tell_errors
from bootvol.login import ILogin
from bootvol.policy import Policy
from bootvol.turns import Paced


def dialects(
    login: ILogin | None, policy: Policy, region: str, most: int, clock: IReactorTime
) -> list[Dialect]:
    """Return what answers, first what is deepest.

    :param login: knows who may log in; where nobody can, nothing is found below these paths.
    :param policy: says who may see and revoke the tokens of others.
    :param region: what the catalog shows as every endpoint's.
    :param most: how many tokens may be in the course of being revoked.
    :param clock: the reactor.
    """
    if login is None:
        nothing = Klein()
        tell_errors(nothing, v3.fault)
        return [Dialect((prefix,), nothing, v3.fault) for prefix in (b"identity", b"v2.0")]
    catalog = Catalog(region)
    pace = Paced(clock)
    third = v3.V3(login, policy, catalog, most, pace).app
    second = v2.V2(login, catalog, pace).app
    return [
        Dialect((b"identity", b"v3"), third, v3.fault),
        Dialect((b"identity", b"v2.0"), second, v2.fault),
        Dialect((b"v2.0",), second, v2.fault),
        Dialect((b"identity",), _versions(), v3.fault),
    ]


def _versions() -> Klein:
    app = Klein()

    async def versions(request: IRequest) -> Reply:
        url = public_url(request)
        values = [v3.version(url), v2.version(url)]
        # 300, as Keystone does: there are several to choose from.
        return Reply({"versions": {"values": values}}, 300)

    route(app, "GET", "/", versions)
    tell_errors(app, v3.fault)
    return app
