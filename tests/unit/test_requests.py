"""Requests of source http: what a tenant or a server causes delays nobody else."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from bootvol.errors import SourceFailed
from bootvol_plugins.http.options import HttpOptions
from bootvol_plugins.http.requests import Requests
from bootvol_plugins.http.urls import parse
from tests.reactors import as_reactor
from tests.unit.test_channels import turn


class Recording:
    """A client without servers.

    :ivar hosts: the hosts of the requests.
    """

    def __init__(self) -> None:
        self.hosts: list[str] = []

    async def request(self, _method: str, _url: Any, host: str, _headers: Any) -> Any:
        """Note a request."""
        self.hosts.append(host)
        raise SourceFailed


def test_requests_begin_one_a_turn_and_servers_take_turns() -> None:
    """A tenant may have an image searched for many times at once, with many requests each.

    Break: `plugins/bootvol_plugins/http/requests.py`: `await self._pace.turn(url.host)` -> `pass`.
    Break: `plugins/bootvol_plugins/http/requests.py`: `self._pace.turn(url.host)` ->
    `self._pace.turn("")`.
    """
    clock, client = Clock(), Recording()
    allow = ["http://a/", "http://b/"]
    options = HttpOptions(allow=allow)
    made = Requests("web", options, as_reactor(clock), [parse(each) for each in allow])
    put: Any = made
    put._single = client
    for host in "aaaab":
        asked = Deferred.fromCoroutine(made.ask(parse(f"http://{host}/disk")))
        asked.addErrback(lambda failure: failure.trap(SourceFailed))
    for count in range(1, 6):
        assert len(client.hosts) == count
        turn(clock)
    assert client.hosts.index("b") <= 2
    assert len(client.hosts) == 5
