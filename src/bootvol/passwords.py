"""Hashes of passwords and secrets: argon2id in its usual text form.

Only hashes are ever stored.
"""

from __future__ import annotations

import re
from typing import Final

from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import Argon2Error, InvalidHashError, VerifyMismatchError

from bootvol.errors import IdentityFailed

#: OWASP's minimum for argon2id (Password Storage Cheat Sheet): 19 MiB and a few hundredths of a
#: second.  Concurrent logins must not take the memory and processors of the imports.
_HASHER: Final = PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1)

_HASH: Final = re.compile(
    r"\$argon2id\$v=19\$m=[0-9]{1,7},t=[0-9]{1,4},p=[0-9]{1,2}"
    r"\$[A-Za-z0-9+/]{11,86}\$[A-Za-z0-9+/]{22,172}"
)


def hash_password(password: str) -> str:
    """Return the hash to store, with a new salt.  Blocks: uses the processor."""
    return _HASHER.hash(_bytes(password))


def is_hash(text: str) -> bool:
    """Return whether a text has the form of a hash from :func:`hash_password`."""
    return _HASH.fullmatch(text) is not None


def cost(kept: str) -> int:
    """Return the cost of verifying a hash, for comparison with others.

    :raises IdentityFailed: if ``kept`` is not a valid hash.
    """
    try:
        used = extract_parameters(kept)
    except InvalidHashError as error:
        raise IdentityFailed(f"A hash cannot be read: {error}") from error
    return used.memory_cost * used.time_cost


#: The cost of a hash from :func:`hash_password`.
COST: Final = _HASHER.memory_cost * _HASHER.time_cost


def verify(kept: str, password: str) -> bool:
    """Return whether a hash belongs to a password.  Blocks: uses the processor.

    The call takes the same time with either result.

    :raises IdentityFailed: if ``kept`` is not a valid hash, or needs more memory than available.
    """
    try:
        return _HASHER.verify(kept, _bytes(password))
    except VerifyMismatchError:
        return False
    except (Argon2Error, InvalidHashError) as error:
        raise IdentityFailed(f"A password cannot be verified: {error}") from error


def _bytes(password: str) -> bytes:
    return password.encode("utf-8", "surrogatepass")
