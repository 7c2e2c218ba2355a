"""Operations of callers on key pairs: create or import, show, and delete them.

bootvol stores public keys only. A generated private key is shown once, to the caller who created
the pair.
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_public_key,
)
from sqlalchemy import Connection as Db

from bootvol.errors import InvalidKeyPair
from bootvol.fair_share import Turns
from bootvol.model import Caller, KeyPair
from bootvol.service.quotas import Quotas
from bootvol.store import keypairs as keypair_rows
from bootvol.store import volumes as volume_rows
from bootvol.store.database import Database
from bootvol.threads import Threads

#: Bits of a generated key; as many as Nova's.
_BITS: Final = 2048
#: Keys that are generated at once: each takes a processor for a tenth of a second, and a thread.
_AT_ONCE: Final = 2
#: The names that Nova allows today.
_NAME: Final = re.compile(r"[A-Za-z0-9 @._-]{1,255}")
#: Limit of a public key's length in characters: RSA with 16384 bits needs less than 3000.
_LONGEST: Final = 16 * 1024


class KeyPairs:
    """The key pairs of all users, as seen by a caller.

    :param now: returns the current time, as an aware UTC datetime.
    """

    def __init__(
        self, database: Database, quotas: Quotas, threads: Threads, now: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._quotas = quotas
        self._threads = threads
        self._turns = Turns(_AT_ONCE)
        self._now = now

    async def create(
        self, caller: Caller, name: str, public_key: str | None
    ) -> tuple[KeyPair, str | None]:
        """Add a key pair.

        :param public_key: the public key in the format of OpenSSH; None to generate a new pair.
        :returns: the key pair; and the private key in PEM of a generated pair, else None.
        :raises InvalidKeyPair: if the name or the key is not valid.
        :raises KeyPairExists: if the caller has a key pair of that name.
        :raises QuotaExceeded: if the caller has as many key pairs as allowed.
        """
        if not _NAME.fullmatch(name) or name != name.strip():
            raise InvalidKeyPair("Keypair name contains unsafe characters")
        if public_key is None:
            async with self._turns.turn(caller.tenant):
                public, private = await self._threads.run(_made)
        else:
            public, private = await self._threads.run(_checked, public_key), None
        wanted = KeyPair(caller.tenant, caller.user, name, fingerprint(public), public, self._now())
        return await self._database.write(self._add, wanted), private

    def _add(self, db: Db, wanted: KeyPair) -> KeyPair:
        volume_rows.lock_tenant_quota(db, wanted.tenant)
        used = keypair_rows.count(db, wanted.tenant, wanted.user)
        self._quotas.of(db, wanted.tenant).check_key_pairs(used)
        return keypair_rows.add(db, wanted)

    async def listed(self, caller: Caller) -> Sequence[KeyPair]:
        """List the caller's key pairs, by name."""
        return await self._database.read(keypair_rows.listed, caller.tenant, caller.user)

    async def get(self, caller: Caller, name: str) -> KeyPair:
        """Return one of the caller's key pairs.

        :raises KeyPairNotFound: if the caller has no key pair of that name.
        """
        return await self._database.read(keypair_rows.get, caller.tenant, caller.user, name)

    async def delete(self, caller: Caller, name: str) -> None:
        """Delete one of the caller's key pairs; servers that were given the key keep the key.

        :raises KeyPairNotFound: if the caller has no key pair of that name.
        """
        await self._database.write(keypair_rows.remove, caller.tenant, caller.user, name)


def fingerprint(public_key: str) -> str:
    """Return the MD5 of a public key's bytes, in hex with colons, as ``ssh-keygen -l -E md5``.

    :param public_key: the key in the format of OpenSSH: kind, bytes in base64, comment.
    :raises InvalidKeyPair: if the key has another format.
    """
    parts = public_key.split(None, 2)
    try:
        raw = b64decode(parts[1], validate=True)
    except (IndexError, NotBase64, ValueError):
        raise InvalidKeyPair from None
    digest = hashlib.md5(raw, usedforsecurity=False).hexdigest()
    return ":".join(digest[n : n + 2] for n in range(0, len(digest), 2))


def _made() -> tuple[str, str]:
    """Generate a key pair; return the public key for OpenSSH, and the private key in PEM. Slow."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=_BITS)
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    return f"{public.decode('ascii')} Generated-by-bootvol", private.decode("ascii")


def _checked(public_key: str) -> str:
    """Return a public key in the format of OpenSSH, in one line.

    :raises InvalidKeyPair: if the text is not a public key, or has several lines.
    """
    lines = public_key.strip().splitlines()
    if len(public_key) > _LONGEST or len(lines) != 1 or not lines[0].isprintable():
        raise InvalidKeyPair
    try:
        load_ssh_public_key(lines[0].encode("utf-8"))
    except (ValueError, UnsupportedAlgorithm):
        raise InvalidKeyPair from None
    return lines[0]
