"""Requests for short parts of images, with both ends of their ranges."""

from __future__ import annotations

import attrs
from hyperlink import DecodedURL
from twisted.web.iweb import IResponse

from bootvol.errors import SourceFailed, SourceRefused
from bootvol.reactors import IReactor
from bootvol_plugins.http.client import stop
from bootvol_plugins.http.encodings import encodings_of
from bootvol_plugins.http.ranges import part_of, span, validator_of
from bootvol_plugins.http.requests import Requests
from bootvol_plugins.http.stream import BodyStream


@attrs.frozen
class Parts:
    """The parts of one image at one server.

    :ivar stall: see :class:`BodyStream`.
    :ivar validator: the validator of the parts' streams.
    :ivar condition: the validator that each answer must state, or None.
    """

    requests: Requests
    reactor: IReactor
    stall: float
    url: DecodedURL
    validator: str | None
    condition: str | None

    async def open(self, size: int, offset: int, length: int) -> BodyStream:
        """Open a part of an image whose first bytes have come, for one of several connections.

        :param size: size of the image in bytes.
        :raises bootvol.errors.SourceFailed: if the server does not give this part of this image.
        :raises bootvol.errors.SourceRefused: for a redirect that is not allowed.
        """
        response = await self.ask(offset, length, spare=True)
        try:
            self.requests.check_passing(response, self.url.host)
        except SourceFailed:
            stop(response)
            raise
        part = self.stream(response, offset, length)
        if part is not None and part.size == size:
            return part
        if part is not None:
            await part.close()
        raise SourceFailed(f"{self.url.host} does not give the next part of the image.")

    async def ask(self, offset: int, length: int, *, spare: bool = False) -> IResponse:
        """Request a part, perhaps over a kept connection.

        :param spare: see :meth:`.Requests.ask`.
        """
        headers = span(offset, length, self.condition)
        return await self.requests.ask(self.url, headers, keep=True, spare=spare)

    def stream(self, response: IResponse, offset: int, length: int) -> BodyStream | None:
        """Return the stream of a requested part; None, after dropping the answer, for another."""
        part = part_of(response)
        if (
            part is None
            or part.start != offset
            or part.size is None
            or part.end < min(offset + length, part.size)
            or self.condition not in (None, validator_of(response))
            or is_encoded(response)
        ):
            stop(response)
            return None
        size, validator = part.size, self.validator
        return BodyStream(response, self.reactor, self.stall, size, offset, validator)


def is_encoded(response: IResponse) -> bool:
    """Tell whether the offsets of an answer may be those of encoded bytes."""
    try:
        return bool(encodings_of(response))
    except SourceRefused:
        return True
