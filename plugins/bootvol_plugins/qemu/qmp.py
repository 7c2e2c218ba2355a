"""A client of QMP, by which a process of QEMU is told what to do while it runs.

Each message is one line of JSON: see "QEMU Machine Protocol Specification" in QEMU's manual.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import orjson
from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.error import ConnectError, ConnectingCancelledError
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure

from bootvol.errors import HypervisorFailed
from bootvol.threads import Shared

#: The longest message, in bytes: a guest that broke out must not fill the daemon's memory.
_LONGEST: Final = 1024 * 1024
#: The most bytes that may come until an answer has: a guest that broke out must not keep the daemon
#: busy with events.
_MOST: Final = 4 * _LONGEST
#: Seconds that the answer to a command may take.
_ANSWER: Final = 10.0


class QmpFailed(Exception):
    """QEMU does not answer, or broke off."""


class QmpRefused(Exception):
    """QEMU does not do what it was told; it says why."""


class Qmp(LineReceiver):
    """A connection, which :func:`connected` makes; one command at a time.

    :param clock: provides IReactorTime.
    """

    delimiter = b"\n"
    MAX_LENGTH = _LONGEST

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self._awaited: Deferred[dict[str, Any]] = Deferred()
        self._lost: Shared[None] = Shared()
        self._come = 0

    async def execute(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        descriptor: int | None = None,
    ) -> Any:
        """Let QEMU carry out a command.

        :param descriptor: goes along; it stays the caller's.
        :returns: what the command does.
        :raises QmpRefused: QEMU does not carry it out.
        :raises QmpFailed: there is no answer; whether it is carried out is not known.
        """
        self._awaited = Deferred()
        self._come = 0
        transport: Any = self.transport
        if descriptor is not None:
            transport.sendFileDescriptor(descriptor)
        self.sendLine(orjson.dumps({"execute": command, "arguments": arguments or {}}))
        answer = await self.message(_ANSWER)
        if "error" in answer:
            raise QmpRefused(str(answer["error"].get("desc")))
        return answer.get("return")

    async def message(self, seconds: float) -> dict[str, Any]:
        """Wait for the greeting, or for an answer.

        :raises QmpFailed: none comes within so many seconds.
        """
        if self._lost.ended:
            raise QmpFailed("QEMU has closed the connection.")
        try:
            return await self._awaited.addTimeout(seconds, self._clock)
        except defer.TimeoutError:
            raise QmpFailed("QEMU does not answer.") from None

    async def close(self) -> None:
        """Close the connection, and wait until it is."""
        transport: Any = self.transport
        transport.abortConnection()
        await self._lost.wait()

    def dataReceived(self, data: bytes) -> Any:
        """Take some bytes, but not without end."""
        self._come += len(data)
        if self._come <= _MOST:
            return super().dataReceived(data)
        transport: Any = self.transport
        transport.abortConnection()
        return None

    def lineReceived(self, line: bytes) -> None:
        """Take a message; events are passed over, what there is can be asked for."""
        try:
            message = orjson.loads(line)
            if not isinstance(message, dict):
                raise ValueError("no object")
        except ValueError:
            transport: Any = self.transport
            transport.abortConnection()
            return
        if "event" not in message and not self._awaited.called:
            self._awaited.callback(message)

    def connectionLost(self, reason: Failure = Failure(ConnectError())) -> None:  # noqa: B008
        """Nothing more will come."""
        if not self._awaited.called:
            self._awaited.errback(QmpFailed("QEMU has closed the connection."))
        self._lost.finish(None)


@asynccontextmanager
async def connected(reactor: Any, path: str, seconds: float = _ANSWER) -> AsyncIterator[Qmp]:
    """Connect to the socket at ``path``; QEMU talks to one client at a time.

    :param seconds: that the greeting may take: QEMU sends it when the machine is complete.
    :raises QmpFailed: nobody listens there, or there is no greeting.
    """
    qmp = Qmp(reactor)
    try:
        await connectProtocol(UNIXClientEndpoint(reactor, path), qmp)
    except ConnectError as error:
        raise QmpFailed("QEMU does not listen.") from error
    except ConnectingCancelledError as error:
        raise defer.CancelledError from error
    try:
        await qmp.message(seconds)
        await qmp.execute("qmp_capabilities")
        yield qmp
    finally:
        await qmp.close()


@contextmanager
def failures(what: str) -> Iterator[None]:
    """Turn what can go wrong into the contract's error.

    :param what: what failed, as the beginning of a sentence.
    :raises HypervisorFailed: in place of what QEMU or the system says.
    """
    try:
        yield
    except OSError as error:
        raise HypervisorFailed(f"{what}: {error.strerror or error}.") from error
    except (QmpFailed, QmpRefused) as error:
        raise HypervisorFailed(f"{what}: {str(error).rstrip('.')}.") from error


async def children(qmp: Qmp, path: str) -> list[str]:
    """Return the names of what there is at a place in QEMU's tree of objects."""
    found: list[dict[str, Any]] = await qmp.execute("qom-list", {"path": path})
    return [str(each["name"]) for each in found]


async def devices(qmp: Qmp) -> list[str]:
    """Return the names of the devices that are plugged in."""
    return await children(qmp, "/machine/peripheral")


async def drive(qmp: Qmp, device: str) -> str:
    """Return the name of the node that a device reads and writes."""
    path = f"/machine/peripheral/{device}"
    return str(await qmp.execute("qom-get", {"path": path, "property": "drive"}))


async def nodes(qmp: Qmp) -> list[str]:
    """Return the names of the blocks that are open."""
    found = await qmp.execute("query-named-block-nodes", {"flat": True})
    return [str(each["node-name"]) for each in found]
