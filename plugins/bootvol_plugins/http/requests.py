"""Requests of an http source: each request follows only allowed redirects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from hyperlink import DecodedURL
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IPolicyForHTTPS, IResponse

from bootvol.clocks import sleep
from bootvol.errors import SourceFailed, SourceRefused
from bootvol.fair_share import Paced
from bootvol.reactors import IReactor
from bootvol.sparing import FewLines
from bootvol_plugins.http.addresses import AddressPolicy, CheckedEndpoints
from bootvol_plugins.http.client import Client, stop, trusting
from bootvol_plugins.http.crowds import Crowd, Crowds, is_crowded
from bootvol_plugins.http.direct import DirectAgent, QuietPool
from bootvol_plugins.http.keeping import keeping_agent, kept_connections
from bootvol_plugins.http.options import HttpOptions
from bootvol_plugins.http.proxy import ProxiedAgent
from bootvol_plugins.http.urls import Refused, joined, lies_under, to_ask

#: Maximum number of redirects, the same as curl's limit.
_MOST_REDIRECTS: Final = 50
#: Time limit of all redirects together, in multiples of the time limit of one answer.
_ALL_ANSWERS: Final = 3
#: Seconds for a server to notice that connections have ended, before each repeated request.
_NOTICED: Final = (0.2, 1.0, 3.0)


class Requests:
    """Sends requests to the servers of one source.

    :param name: the source's name in the configuration.
    :param options: the source's settings.
    :param allow: the URLs that requests must stay below.
    :ivar crowds: the streams that use several connections.
    """

    _log = Logger()

    def __init__(
        self, name: str, options: HttpOptions, reactor: IReactor, allow: Sequence[DecodedURL]
    ) -> None:
        self._name = name
        self._allow = allow
        self._reactor = reactor
        self._timeout = options.timeout
        self.crowds = Crowds()
        #: A request takes a millisecond of the reactor, and the search for an image makes many.
        self._pace = Paced(reactor)
        #: A server may redirect the request for each usual name of a list.
        self._lines = FewLines(reactor, self._log, "forbidden redirects")
        self._pool = kept_connections(reactor)
        through = " through the proxy" if options.proxy else ""
        single, keeping = _agents(name, options, reactor, self._pool, allow)
        self._single = Client(single, reactor, options.timeout, through, encoded=True)
        self._keeping = Client(keeping, reactor, options.timeout, through, encoded=True)
        #: Checks answers: see :meth:`Client.check_passing`.
        self.check_passing = self._single.check_passing

    async def ask(
        self,
        url: DecodedURL,
        headers: Headers | None = None,
        *,
        keep: bool = False,
        spare: bool = False,
    ) -> IResponse:
        """Send a GET request, and follow allowed redirects.

        If the server may refuse the request for the number of connections, end some connections of
        streams that have several, and ask again.

        :param keep: whether the connection may have served such a request before, and may serve
            another one after the answer.  Its body is then not received directly.
        :param spare: whether the request is for one of several connections of a stream.  Then no
            other connection ends for this request.
        :raises bootvol.errors.SourceFailed: if a server does not answer.
        :raises bootvol.errors.SourceRefused: for a redirect that is not allowed.
        """
        has_room, crowd = False, self.crowds.of(url.host)
        for pause in () if spare else _NOTICED:
            response: IResponse | None = None
            try:
                response = await self._ask(url, headers, keep=keep)
            except SourceFailed:
                has_room = self._make_room(crowd) or has_room
                if not has_room:
                    raise
            if response is not None:
                if is_crowded(response):
                    has_room = self._make_room(crowd) or has_room
                if not (has_room and is_crowded(response)):
                    return response
                stop(response)
            await self.close()
            await sleep(self._reactor, pause)
        return await self._ask(url, headers, keep=keep)

    def _make_room(self, crowd: Crowd) -> bool:
        """End connections beyond one of a stream; return whether any ends.

        Idle connections count, too: the caller closes these.
        """
        return crowd.make_room() or not self._pool.is_empty

    async def _ask(self, url: DecodedURL, headers: Headers | None, *, keep: bool) -> IResponse:
        """Send a GET request once, and follow allowed redirects."""
        client = self._keeping if keep else self._single
        late = self._reactor.seconds() + _ALL_ANSWERS * self._timeout
        for _ in range(_MOST_REDIRECTS + 1):
            await self._pace.turn(url.host)
            response = await client.request("GET", to_ask(url), url.host, headers)
            location = _location(response)
            if location is None:
                return response
            stop(response)
            url = self._redirected(location, url)
            if self._reactor.seconds() > late:
                raise SourceRefused(f"{url.host} redirects for too long.")
        raise SourceRefused(f"{url.host} redirects more than {_MOST_REDIRECTS} times.")

    async def close(self) -> None:
        """End the kept connections."""
        closing: Deferred[None] = self._pool.closeCachedConnections()
        await closing

    def _redirected(self, location: str, url: DecodedURL) -> DecodedURL:
        try:
            target = joined(url, location)
        except Refused:
            raise SourceRefused(f"{url.host} redirects to an invalid URL.") from None
        if not lies_under(target, self._allow):
            # The target may name services inside, or hold secrets: only the operator learns of it.
            if self._lines.admit():
                self._log.info(
                    "{host} redirects to {origin}, which `allow` of source {source} does not"
                    " contain",
                    host=url.host,
                    origin=target.replace(path=(), query=()).to_text(),
                    source=self._name,
                )
            raise SourceRefused(f"{url.host} redirects to a URL that the operator does not allow.")
        return target


def _agents(
    name: str,
    options: HttpOptions,
    reactor: IReactor,
    pool: QuietPool,
    allow: Sequence[DecodedURL],
) -> tuple[IAgent, IAgent]:
    """Return two agents with the operator's policy for addresses: the second keeps connections."""
    policy = AddressPolicy.of(options.networks, allow)
    tls: IPolicyForHTTPS = trusting(options.ca)
    if options.proxy is not None:
        # All servers share the connections to a proxy, so none of these is kept.
        proxied = ProxiedAgent(reactor, options.proxy, policy, tls, options.timeout)
        return proxied, proxied
    endpoints = CheckedEndpoints(reactor, policy, tls, options.timeout, name)
    return DirectAgent(reactor, endpoints), keeping_agent(reactor, endpoints, pool)


def _location(response: IResponse) -> str | None:
    """Return the target of a redirect; None for other answers (RFC 9110, section 15.4).

    Without the header ``Location`` an answer is not a redirect, as in curl.
    """
    values = response.headers.getRawHeaders(b"location") or []
    if not 300 <= response.code < 400 or response.code == 304 or not any(values):
        return None
    try:
        return str(values[0], "utf-8")
    except UnicodeDecodeError:
        return str(values[0], "latin-1")
