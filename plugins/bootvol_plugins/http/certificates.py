"""The reasons why certificates of https servers are refused.

OpenSSL tells its reason only to the callback of the verification.  Twisted's callback drops the
reason, and every refusal ends in the same text, "certificate verify failed".
"""

from __future__ import annotations

from typing import Final

import attrs
from OpenSSL.crypto import X509
from OpenSSL.SSL import VERIFY_FAIL_IF_NO_PEER_CERT, VERIFY_PEER, Connection
from service_identity import VerificationError
from twisted.internet._sslverify import ClientTLSOptions, _verifyCB
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

#: X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED, from openssl/x509_vfy.h.
_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10
#: Errors of chains that lead to no trusted authority: X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT,
#: _DEPTH_ZERO_SELF_SIGNED_CERT, _SELF_SIGNED_CERT_IN_CHAIN, _UNABLE_TO_GET_ISSUER_CERT_LOCALLY,
#: _UNABLE_TO_VERIFY_LEAF_SIGNATURE and _CERT_UNTRUSTED.
_UNTRUSTED: Final = frozenset({2, 18, 19, 20, 21, 27})

_RENEW: Final = "Have the server's certificate renewed, and check the clocks of both machines."
_TRUST: Final = (
    "Have the server send all certificates up to its authority. If the authority is yours, name its"
    " certificate in `ca`."
)
_NAME: Final = "Check the name in the URL, or have the server get a certificate for the name."
_OTHER: Final = "Have the server's certificate made anew."


class CertificateRefused(Exception):
    """OpenSSL refuses a certificate.

    :param number: OpenSSL's number of the error.
    :param depth: position of the certificate in the chain; 0 is the server's own.
    """

    def __init__(self, number: int, depth: int) -> None:
        super().__init__(number, depth)
        which = "its certificate" if depth == 0 else "a certificate of its authority"
        self.remedy = _OTHER
        if number == _EXPIRED:
            self.fault, self.remedy = f"{which} has expired", _RENEW
        elif number == _NOT_YET_VALID:
            self.fault, self.remedy = f"{which} is not valid yet", _RENEW
        elif number in _UNTRUSTED:
            self.fault = "its certificate comes from an authority that is not trusted"
            self.remedy = _TRUST
        else:
            self.fault = f"{which} is refused (error {number} of OpenSSL)"


def refused(error: BaseException | None) -> tuple[str, str] | None:
    """Return why a certificate was refused, and the operator's remedy; None for other errors."""
    if isinstance(error, CertificateRefused):
        return error.fault, error.remedy
    if isinstance(error, VerificationError):
        return "its certificate is for other names", _NAME
    return None


@implementer(IOpenSSLClientConnectionCreator)
@attrs.frozen
class Explaining:
    """Makes connections as Twisted does, and keeps OpenSSL's reason for a refusal."""

    options: ClientTLSOptions

    def clientConnectionForTLS(  # noqa: N802 (Twisted's name)
        self, tlsProtocol: TLSMemoryBIOProtocol
    ) -> Connection:
        """See :class:`twisted.internet.interfaces.IOpenSSLClientConnectionCreator`."""
        options = self.options
        connection = options.clientConnectionForTLS(tlsProtocol)
        verified = _verifyCB(tlsProtocol, options._hostnameIsDnsName, options._hostnameASCII)
        waiting: list[TLSMemoryBIOProtocol] = [tlsProtocol]

        def verify(made: Connection, certificate: X509, number: int, depth: int, ok: int) -> bool:
            if ok:
                return verified(made, certificate, number, depth, True)
            # Like Twisted's callback, keep no reference to the protocol afterwards.
            while waiting:
                waiting.pop().failVerification(Failure(CertificateRefused(number, depth)))
            return False

        connection.set_verify(VERIFY_PEER | VERIFY_FAIL_IF_NO_PEER_CERT, verify)
        return connection
