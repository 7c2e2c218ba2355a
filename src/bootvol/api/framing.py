"""Requests whose end a program in front of the daemon may see elsewhere: request smuggling.

Such a program, a proxy, passes the requests of many clients on.  If proxy and daemon disagree on
the end of a request, the rest becomes the begin of another client's request.  So the daemon refuses
all forms that RFC 9112 lets recipients refuse or repair.  Twisted refuses many of them: several
lengths, a length beside chunks, line feeds alone, and spaces before a colon.
"""

from __future__ import annotations

import re
from typing import Final

from twisted.web.http import _ChunkedTransferDecoder, _MalformedChunkedDataError

from bootvol.errors import BodyTooLarge, BootvolError, MalformedRequest

#: A field line (RFC 9110, section 5.1), for trailers.
_FIELD: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\0\r\n]*")
_TRANSFER_ENCODING: Final = b"transfer-encoding"
#: The first byte of a TLS handshake (RFC 8446, section 5.1), which begins no request.
_HANDSHAKE: Final = b"\x16"
#: Maximum number of digits of a Content-Length.  Python reads no number of more than 4,300 digits.
_DIGITS: Final = 20


def is_handshake(data: bytes) -> bool:
    """Return whether input asks for TLS.

    Such input may have no end of a line: a parser of requests would wait for the end.
    """
    return data.startswith(_HANDSHAKE)


def is_folded(line: bytes) -> bool:
    """Return whether a line of a head continues the line before (RFC 9112, section 5.2)."""
    return line[:1] in (b" ", b"\t")


def fault_of(line: bytes, version: bytes) -> BootvolError | None:
    """Return the fault of a header that states the length of the body; None for a clear length.

    :param line: any header.
    :param version: the version of the request.  HTTP/1.0 has no chunks (RFC 9112, section 6.1).
    """
    name, _, value = line.partition(b":")
    if name.lower() == b"content-length" and len(value.strip()) > _DIGITS:
        return BodyTooLarge()
    if name.lower() == _TRANSFER_ENCODING and not (states_chunks(line) and version != b"HTTP/1.0"):
        return MalformedRequest()
    return None


def states_chunks(line: bytes) -> bool:
    """Return whether a header states a body in chunks, and nothing else."""
    name, _, value = line.partition(b":")
    return name.lower() == _TRANSFER_ENCODING and value.strip(b" \t").lower() == b"chunked"


class StrictChunks(_ChunkedTransferDecoder):
    """Decodes a body in chunks, and drops valid trailers.  Twisted's decoder drops any bytes."""

    def _dataReceived_TRAILER(self) -> bool:  # noqa: N802 (Twisted's name)
        further = bool(super()._dataReceived_TRAILER())
        if self._trailerHeaders and not _FIELD.fullmatch(self._trailerHeaders[-1]):
            raise _MalformedChunkedDataError
        return further
