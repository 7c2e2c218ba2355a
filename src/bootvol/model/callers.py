"""Callers and their key pairs."""

from __future__ import annotations

from datetime import datetime

import attrs


@attrs.frozen
class Caller:
    """Who asks, as the identity plugin says.

    :ivar token: what the caller has shown, for sources that have their own say about who may have
        an image; None where it is for bootvol's eyes only.  It is kept nowhere.
    :ivar request_id: the id of the request that the caller asks by, for the log; identity plugins
        leave it out.
    """

    user: str
    tenant: str
    roles: frozenset[str] = frozenset()
    token: str | None = attrs.field(default=None, repr=False, eq=False)
    request_id: str = attrs.field(default="", eq=False)


@attrs.frozen
class PublicKey:
    """The public half of a key pair, in the form of OpenSSH."""

    name: str
    text: str


@attrs.frozen
class KeyPair:
    """A key pair of a user in a tenant; bootvol keeps its public half alone.

    :ivar fingerprint: MD5 of the key, in hex with colons, as Nova shows it.
    """

    tenant: str
    user: str
    name: str
    fingerprint: str
    public_key: str
    created_at: datetime
    id: int = 0
