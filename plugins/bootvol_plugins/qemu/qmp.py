"""A client of QMP, the protocol for commands to a running process of QEMU.

Each message is one line of JSON: see "QEMU Machine Protocol Specification" in QEMU's manual.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Annotated, Any, Final, NotRequired, TypeVar, cast

import orjson
from pydantic import Field, TypeAdapter, ValidationError
from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.error import ConnectError, ConnectingCancelledError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Factory
from twisted.internet.unix import Client
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from typing_extensions import TypedDict

from bootvol.errors import HypervisorFailed
from bootvol.jsons import JsonObject
from bootvol.reactors import IReactor, refuse_descriptors
from bootvol.threads import Shared

#: Longest message in bytes.  A guest that broke out must not fill the daemon's memory.
_LONGEST: Final = 1024 * 1024
#: Most bytes, and most messages, until an answer has come.  A guest that broke out must not keep
#: the daemon busy with events.  A working QEMU sends few.
_MOST: Final = 4 * _LONGEST
_MOST_MESSAGES: Final = 1000
#: Longest wait for the answer to a command, in seconds.
_ANSWER: Final = 10.0


# The forms of answers.  Keys that nobody asks for are left out.
class _Child(TypedDict):
    name: str


_Node = TypedDict("_Node", {"node-name": str})


class _Given(TypedDict):
    opaque: NotRequired[str]


_Fdset = TypedDict("_Fdset", {"fdset-id": int, "fds": list[_Given]})
_Added = TypedDict("_Added", {"fdset-id": int, "fd": int})
_Few = Field(max_length=1000)
_TEXT: Final = TypeAdapter(str)
_CHILDREN: Final = TypeAdapter(Annotated[list[_Child], _Few])
_NODES: Final = TypeAdapter(Annotated[list[_Node], _Few])
FDSETS: Final = TypeAdapter(Annotated[list[_Fdset], _Few])
ADDED: Final = TypeAdapter(_Added)

T = TypeVar("T")


class QmpFailed(Exception):
    """QEMU does not answer, answers nonsense, or broke off the connection."""


class QmpRefused(Exception):
    """QEMU refuses a command.  The text is QEMU's reason."""


class Qmp(LineReceiver):
    """A connection, made by :func:`connected`.  Takes one command at a time.

    :param clock: provides IReactorTime.
    """

    delimiter = b"\n"
    MAX_LENGTH = _LONGEST

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._awaited: Deferred[JsonObject] = Deferred()
        self._lost: Shared[None] = Shared()
        self._come = self._messages = 0

    @property
    def _socket(self) -> Client:
        return cast("Client", self.transport)

    async def execute(
        self,
        command: str,
        arguments: Mapping[str, object] | None = None,
        descriptor: int | None = None,
    ) -> Any:
        """Let QEMU carry out a command.

        :param descriptor: descriptor to send along.  The caller keeps and closes the descriptor.
        :returns: the result of the command, of any form: see :meth:`ask`.
        :raises QmpRefused: if QEMU does not carry out the command.
        :raises QmpFailed: if no answer comes.  QEMU may have carried out the command, or not.
        """
        self._awaited = Deferred()
        self._come = self._messages = 0
        if descriptor is not None:
            self._socket.sendFileDescriptor(descriptor)
        self.sendLine(orjson.dumps({"execute": command, "arguments": arguments or {}}))
        answer = await self.message(_ANSWER)
        if "error" in answer:
            error = answer["error"]
            raise QmpRefused(str(error.get("desc") if isinstance(error, dict) else error))
        return answer.get("return")

    async def ask(
        self,
        form: TypeAdapter[T],
        command: str,
        arguments: Mapping[str, Any] | None = None,
        descriptor: int | None = None,
    ) -> T:
        """Let QEMU carry out a command, and return the result.

        :param form: the form of the result.  A guest that broke out sends any other form.
        :raises QmpRefused: as :meth:`execute`.
        :raises QmpFailed: as :meth:`execute`, or if the result has another form.
        """
        result = await self.execute(command, arguments, descriptor)
        try:
            return form.validate_python(result, strict=True)
        except ValidationError:
            raise QmpFailed(f"QEMU answers nonsense to {command}.") from None

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
        self._socket.abortConnection()
        await self._lost.wait()

    def connectionMade(self) -> None:
        """Take no descriptors: a guest that broke out may send many."""
        refuse_descriptors(self.transport)

    def dataReceived(self, data: bytes) -> None:
        """Take some bytes.  Break off when too many have come."""
        self._come += len(data)
        if self._come <= _MOST:
            super().dataReceived(data)
        else:
            self._break_off()

    def lineReceived(self, line: bytes) -> None:
        """Take a message.  Pass over events, since commands can ask for the state."""
        self._messages += 1
        try:
            message = orjson.loads(line)
        except ValueError:
            message = None
        if not isinstance(message, dict) or self._messages > _MOST_MESSAGES:
            self._break_off()
        elif "event" not in message and not self._awaited.called:
            self._awaited.callback(message)

    def _break_off(self) -> None:
        """End the connection, without another look at the bytes that have come."""
        self.clearLineBuffer()
        self._socket.abortConnection()

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
    factory = Factory.forProtocol(lambda: qmp)
    # Otherwise each connection would have two lines in the log.
    factory.noisy = False
    try:
        await UNIXClientEndpoint(reactor, path).connect(factory)
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


async def in_time(talk: Coroutine[Deferred[Any], Any, T], seconds: float, clock: IReactorTime) -> T:
    """Let a talk of several commands take a limited time.

    :param talk: gives commands.  A guest that broke out may answer each of them late.
    :raises QmpFailed: if the talk takes more than ``seconds`` seconds.  The talk is then cancelled.
    """
    try:
        return await Deferred.fromCoroutine(talk).addTimeout(seconds, clock)
    except defer.TimeoutError:
        raise QmpFailed("QEMU takes too long.") from None


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
    found = await qmp.ask(_CHILDREN, "qom-list", {"path": path})
    return [each["name"] for each in found]


async def devices(qmp: Qmp) -> list[str]:
    """Return the names of the plugged-in devices."""
    return await children(qmp, "/machine/peripheral")


async def drive(qmp: Qmp, device: str) -> str:
    """Return the name of the node that a device reads and writes."""
    path = f"/machine/peripheral/{device}"
    return await qmp.ask(_TEXT, "qom-get", {"path": path, "property": "drive"})


async def nodes(qmp: Qmp) -> list[str]:
    """Return the names of the open block nodes."""
    found = await qmp.ask(_NODES, "query-named-block-nodes", {"flat": True})
    return [each["node-name"] for each in found]
