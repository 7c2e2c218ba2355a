"""A resolver for tests, with given answers for some names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IResolutionReceiver,
)
from zope.interface import implementer


@implementer(IHostResolution)
class _Resolution:
    def __init__(self, name: str) -> None:
        self.name = name

    def cancel(self) -> None:
        """Do nothing: the resolution has ended."""


@implementer(IHostnameResolver)
class Names:
    """A resolver that answers at once.

    :param answers: maps each name to its first answer, second answer and so on; the last one stays.
    :param others: the resolver for other names; without one, other names have no address.
    :ivar asked: the requested names, except those that ``others`` answered.
    """

    def __init__(
        self, answers: dict[str, list[list[str]]], others: IHostnameResolver | None = None
    ) -> None:
        self.asked: list[str] = []
        self._answers = {name: list(each) for name, each in answers.items()}
        self._others = others

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        """See :class:`twisted.internet.interfaces.IHostnameResolver`."""
        if hostName not in self._answers and self._others is not None:
            return self._others.resolveHostName(
                resolutionReceiver, hostName, portNumber, addressTypes, transportSemantics
            )
        self.asked.append(hostName)
        answers = self._answers.get(hostName, [[]])
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        resolution = _Resolution(hostName)
        resolutionReceiver.resolutionBegan(resolution)
        for address in answer:
            kind = IPv6Address if ":" in address else IPv4Address
            resolutionReceiver.addressResolved(kind("TCP", address, portNumber))
        resolutionReceiver.resolutionComplete()
        return resolution


@contextmanager
def known(reactor: Any, answers: dict[str, list[list[str]]]) -> Iterator[Names]:
    """Make the reactor give these answers until the block ends."""
    names = Names(answers, reactor.nameResolver)
    before = reactor.installNameResolver(names)
    try:
        yield names
    finally:
        reactor.installNameResolver(before)
