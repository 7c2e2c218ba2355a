"""Passwords and secrets, of which only a hash is ever kept: argon2id, in its usual text form."""

from __future__ import annotations

import re
from typing import Final

from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import Argon2Error, InvalidHashError, VerifyMismatchError

from bootvol.errors import IdentityFailed

#: OWASP's least for argon2id (Password Storage Cheat Sheet), 19 MiB and a few hundredths of a
#: second: a login at once with others must not take the memory and processors of the imports.
_HASHER: Final = PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1)

_HASH: Final = re.compile(
    r"\$argon2id\$v=19\$m=[0-9]{1,7},t=[0-9]{1,4},p=[0-9]{1,2}"
    r"\$[A-Za-z0-9+/]{11,86}\$[A-Za-z0-9+/]{22,172}"
)


def hash_password(password: str) -> str:
    """Return the hash to keep, with a new salt; blocks on the processor."""
    return _HASHER.hash(_bytes(password))


def is_hash(text: str) -> bool:
    """Tell whether a text has the form of what :func:`hash_password` returns."""
    return _HASH.fullmatch(text) is not None


def cost(kept: str) -> int:
    """Return what the verification of a hash costs, to compare with others.

    :raises IdentityFailed: ``kept`` is no hash after all.
    """
    try:
        used = extract_parameters(kept)
    except InvalidHashError as error:
        raise IdentityFailed(f"A hash cannot be read: {error}") from error
    return used.memory_cost * used.time_cost


#: The cost of what :func:`hash_password` returns.
COST: Final = _HASHER.memory_cost * _HASHER.time_cost


def verify(kept: str, password: str) -> bool:
    """Tell whether a hash is of a password; blocks on the processor as long as either way.

    :raises IdentityFailed: ``kept`` is no hash after all, or asks for more memory than there is.
    """
    try:
        return _HASHER.verify(kept, _bytes(password))
    except VerifyMismatchError:
        return False
    except (Argon2Error, InvalidHashError) as error:
        raise IdentityFailed(f"A password cannot be verified: {error}") from error


def _bytes(password: str) -> bytes:
    return password.encode("utf-8", "surrogatepass")
