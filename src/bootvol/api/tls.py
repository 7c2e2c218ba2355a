"""TLS as it is served: 1.2 and 1.3, with ciphers whose traffic no later thief of the key can read.

Twisted's own choice for endpoints ``ssl:`` takes older ciphers, too, and leaves the version to who
writes the endpoint.
"""

from __future__ import annotations

from typing import Any, Final

from OpenSSL import SSL

#: Of TLS 1.2; all those of 1.3 are fine.
_CIPHERS: Final = b"ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL"


class ModernTls:
    """A reactor whose endpoints serve no TLS but that.

    :param reactor: does everything else.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenSSL(self, port: int, factory: Any, contextFactory: Any, **more: Any) -> Any:
        """See :meth:`twisted.internet.interfaces.IReactorSSL.listenSSL`."""
        context = contextFactory.getContext()
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.set_max_proto_version(0)
        context.set_cipher_list(_CIPHERS)
        return self._reactor.listenSSL(port, factory, contextFactory, **more)
