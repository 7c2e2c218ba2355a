"""Callers and their key pairs."""

from __future__ import annotations

from datetime import datetime

import attrs


@attrs.frozen
class Caller:
    """The sender of a request, as the identity plugin reports it.

    :ivar token: the caller's token, for sources that decide themselves who may have an image; None
        if no source may see the token.  The token is never stored.
    :ivar request_id: the id of the caller's request, for the log.  Identity plugins leave this
        field empty.
    :ivar service_roles: the roles of the service that forwards the request of its own user, such
        as Nova; empty if the caller sends the request.  Identity plugins leave this field empty.
    """

    user: str
    tenant: str
    roles: frozenset[str] = frozenset()
    token: str | None = attrs.field(default=None, repr=False, eq=False)
    request_id: str = attrs.field(default="", eq=False)
    service_roles: frozenset[str] = frozenset()


@attrs.frozen
class PublicKey:
    """The public half of a key pair, in OpenSSH's format."""

    name: str
    text: str


@attrs.frozen
class KeyPair:
    """A user's key pair in a tenant. bootvol stores only the public half.

    :ivar fingerprint: MD5 of the key, in hex with colons, as in Nova.
    """

    tenant: str
    user: str
    name: str
    fingerprint: str
    public_key: str
    created_at: datetime
    id: int = 0
