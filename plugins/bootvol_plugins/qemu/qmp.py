"""A client of QMP, the protocol for commands to a running process of QEMU.

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
from bootvol.reactors import IReactor
from bootvol.threads import Shared

#: Longest message in bytes.  A guest that broke out must not fill the daemon's memory.
_LONGEST: Final = 1024 * 1024
#: Most bytes until an answer has come.  A guest that broke out must not keep the daemon busy with
#: events.
_MOST: Final = 4 * _LONGEST
#: Longest wait for the answer to a command, in seconds.
_ANSWER: Final = 10.0


class QmpFailed(Exception):
    """QEMU does not answer, or broke off the connection."""


class QmpRefused(Exception):
    """QEMU refuses a command.  The text is QEMU's reason."""


class Qmp(LineReceiver):
    """A connection, made by :func:`connected`.  Takes one command at a time.

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

        :param descriptor: descriptor to send along.  The caller keeps and closes the descriptor.
        :returns: the result of the command.
        :raises QmpRefused: if QEMU does not carry out the command.
        :raises QmpFailed: if no answer comes.  QEMU may have carried out the command, or not.
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

        :raises QmpFailed: if none comes within ``seconds`` seconds.
        """
        if self._lost.ended:
            raise QmpFailed("QEMU has closed the connection.")
        try:
            return await self._awaited.addTimeout(seconds, self._clock)
        except defer.TimeoutError:
            raise QmpFailed("QEMU does not answer.") from None

    async def close(self) -> None:
        """Close the connection, and wait until the connection is closed."""
        transport: Any = self.transport
        transport.abortConnection()
        await self._lost.wait()

    def dataReceived(self, data: bytes) -> Any:
        """Take some bytes.  Break off when too many have come."""
        self._come += len(data)
        if self._come <= _MOST:
            return super().dataReceived(data)
        transport: Any = self.transport
        transport.abortConnection()
        return None

    def lineReceived(self, line: bytes) -> None:
        """Take a message.  Pass over events, since commands can ask for the state."""
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
        """Fail the wait for an answer, since nothing more will come."""
        if not self._awaited.called:
            self._awaited.errback(QmpFailed("QEMU has closed the connection."))
        self._lost.finish(None)


@asynccontextmanager
async def connected(reactor: IReactor, path: str, seconds: float = _ANSWER) -> AsyncIterator[Qmp]:
    """Connect to the socket at ``path``.  QEMU talks to one client at a time.

    :param seconds: longest wait for the greeting.  QEMU greets when the machine is complete.
    :raises QmpFailed: if nobody listens there, or no greeting comes.
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
    """Turn errors of QEMU and of the system into the contract's error.

    :param what: the failure, as the beginning of a sentence.
    :raises HypervisorFailed: if QEMU or the system reports an error.
    """
    try:
        yield
    except OSError as error:
        raise HypervisorFailed(f"{what}: {error.strerror or error}.") from error
    except (QmpFailed, QmpRefused) as error:
        raise HypervisorFailed(f"{what}: {str(error).rstrip('.')}.") from error


async def children(qmp: Qmp, path: str) -> list[str]:
    """Return the names of the objects below a path in QEMU's tree of objects."""
    found: list[dict[str, Any]] = await qmp.execute("qom-list", {"path": path})
    return [str(each["name"]) for each in found]


async def devices(qmp: Qmp) -> list[str]:
    """Return the names of the plugged-in devices."""
    return await children(qmp, "/machine/peripheral")


async def drive(qmp: Qmp, device: str) -> str:
    """Return the name of the node that a device reads and writes."""
    path = f"/machine/peripheral/{device}"
    return str(await qmp.execute("qom-get", {"path": path, "property": "drive"}))


async def nodes(qmp: Qmp) -> list[str]:
    """Return the names of the open block nodes."""
    found = await qmp.execute("query-named-block-nodes", {"flat": True})
    return [str(each["node-name"]) for each in found]
