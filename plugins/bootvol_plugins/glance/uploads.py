"""Images that callers make of volumes: their records and bytes, on the way to Glance."""

from __future__ import annotations

from typing import Final, TypeVar

import attrs
from pydantic import BaseModel, ConfigDict, ValidationError
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

from bootvol.errors import (
    BootvolError,
    DigestMismatch,
    Forbidden,
    ImageNotFound,
    InvalidRequest,
    QuotaExceeded,
    SourceFailed,
    Unauthorized,
)
from bootvol.interfaces import IImageUpload
from bootvol.jsons import JsonObject
from bootvol.model import ImageRecord, ImageStatus, StoredBytes
from bootvol.reactors import IReactor
from bootvol.threads import Shared, StillRunning, at_most
from bootvol_plugins.glance.api import Glance

#: Seconds that Glance may take for an answer after the last byte.
_FINISHING: Final = 600.0

T = TypeVar("T")


class Shown(BaseModel):
    """The parts of Glance's description of an image that an upload needs."""

    model_config = ConfigDict(extra="ignore")

    status: str
    protected: bool = False
    size: int | None = None
    os_hash_algo: str | None = None
    os_hash_value: str | None = None


def described(record: ImageRecord) -> JsonObject:
    """Return the description of an image for Glance."""
    return {
        **record.properties,
        "id": record.id,
        "name": record.name,
        "disk_format": record.disk_format,
        "container_format": record.container_format,
        "visibility": str(record.visibility),
        "protected": record.is_protected,
    }


def refused(code: int) -> BootvolError:
    """Return the error for Glance's refusal of an image."""
    if code == 401:
        return Unauthorized()
    if code == 403:
        return Forbidden("Glance does not allow you to add the image.")
    if code == 413:
        return QuotaExceeded("Glance has no room for the image: the quota is used up.")
    if code in {404, 410}:
        return ImageNotFound("of the volume")
    if code in {400, 409}:
        return InvalidRequest(f"Glance does not accept the image: its answer is {code}.")
    return SourceFailed(f"Glance answers {code} to an upload.")


@implementer(IBodyProducer)
class Sending:
    """The body of a request, written piece by piece at the pace of the connection.

    :param size: the number of bytes.
    :ivar length: the number of bytes.
    :ivar left: the number of bytes that are not written yet.
    """

    def __init__(self, size: int) -> None:
        self.length = self.left = size
        self._consumer: IConsumer | None = None
        self._is_open = False
        self._ended: Deferred[None] = Deferred()
        self._turn: Deferred[None] | None = None

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:  # noqa: N802
        """See :meth:`twisted.web.iweb.IBodyProducer.startProducing`."""
        self._consumer = consumer
        self.resumeProducing()
        return self._ended

    def pauseProducing(self) -> None:
        """See :meth:`twisted.internet.interfaces.IPushProducer.pauseProducing`."""
        self._is_open = False

    def resumeProducing(self) -> None:
        """See :meth:`twisted.internet.interfaces.IPushProducer.resumeProducing`."""
        self._is_open = True
        self.wake()

    def stopProducing(self) -> None:
        """See :meth:`twisted.internet.interfaces.IProducer.stopProducing`: the request is over."""
        self._consumer = None
        self.wake()

    def wake(self) -> None:
        """Let a waiting writer look again."""
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.callback(None)

    @property
    def takes(self) -> bool:
        """True if the connection takes bytes now."""
        return self._consumer is not None and self._is_open

    def turn(self) -> Deferred[None]:
        """Return a Deferred that fires when the connection may take bytes, or is over."""
        self._turn = Deferred()
        return self._turn

    def write(self, data: memoryview) -> None:
        """Send bytes; call only if :attr:`takes` is true."""
        assert self._consumer is not None  # noqa: S101 - for mypy
        self._consumer.write(bytes(data))
        self.left -= len(data)

    def end(self) -> None:
        """End the body."""
        self._ended.callback(None)


@implementer(IImageUpload)
class GlanceUpload:
    """The bytes of one image, on their way to Glance.

    :param token: the caller's token.
    :param stall: seconds that Glance may take for the next bytes.
    """

    def __init__(
        self,
        glance: Glance,
        token: str,
        record: ImageRecord,
        size: int,
        reactor: IReactor,
        stall: float,
    ) -> None:
        self._glance = glance
        self._token = token
        self._record = record
        self._reactor = reactor
        self._stall = stall
        self._sending = Sending(size)
        path = ["images", record.id, "file"]
        self._answer = Shared(Deferred.fromCoroutine(glance.put_data(token, path, self._sending)))
        self._answer.wait().addBoth(lambda _: self._sending.wake())

    async def write(self, data: memoryview) -> None:
        """See :meth:`bootvol.interfaces.IImageUpload.write`."""
        while not self._sending.takes:
            if self._answer.ended:
                raise refused(await self._answer.wait())
            turn = self._sending.turn()
            await _in_time(turn, self._stall, self._reactor)
        self._sending.write(data)

    async def finish(self, data: StoredBytes) -> ImageRecord:
        """See :meth:`bootvol.interfaces.IImageUpload.finish`."""
        if self._sending.left:
            raise SourceFailed(f"{self._sending.left} bytes of the image are missing.")
        if not self._answer.ended:
            self._sending.end()
        code = await _in_time(self._answer.wait(), _FINISHING, self._reactor)
        if code != 204:
            raise refused(code)
        await self._check(data)
        return attrs.evolve(self._record, status=ImageStatus.ACTIVE, data=data)

    async def abort(self) -> None:
        """See :meth:`bootvol.interfaces.IImageUpload.abort`."""
        if not self._answer.ended:
            self._answer.cancel()

    async def _check(self, data: StoredBytes) -> None:
        """Check that Glance has the very bytes.

        :raises DigestMismatch: if Glance has other bytes.
        """
        shown = await look(self._glance, self._token, self._record.id)
        digest = {None: None, "sha512": data.sha512}.get(shown.os_hash_algo, shown.os_hash_value)
        if (shown.size, shown.os_hash_value) != (data.size_bytes, digest):
            raise DigestMismatch(f"Glance has other bytes for image {self._record.id}.")


async def look(glance: Glance, token: str, image_id: str) -> Shown:
    """Return what Glance shows of an image.

    :raises BootvolError: if Glance does not show the image.
    """
    code, answer = await glance.get_json("", token, ["images", image_id])
    if code != 200:
        raise refused(code)
    try:
        return Shown.model_validate(answer)
    except ValidationError:
        raise SourceFailed("Glance describes an image in an unknown form.") from None


async def _in_time(waiting: Deferred[T], seconds: float, reactor: IReactor) -> T:
    """Await a Deferred.

    :raises SourceFailed: if the Deferred does not fire in time.
    """
    try:
        return await at_most(reactor, seconds, waiting)
    except StillRunning:
        waiting.cancel()
        raise SourceFailed(f"Glance takes no bytes for {seconds:g} seconds.") from None
