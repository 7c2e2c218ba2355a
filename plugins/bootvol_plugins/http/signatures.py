"""Verification of a list's signature by gpgv, with the operator's keys.

gpgv parses a stranger's packets, so gpgv is confined (:mod:`bootvol.jail`).  gpgv reads the keys,
the list and the signature, and reaches no other file, no other process and no network.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from bootvol import reading
from bootvol.errors import ConfigurationError, SourceFailed
from bootvol.jail import Bounds, Jail, NotConfined
from bootvol.jail.handing import in_memory
from bootvol.jail.program import NOT_RUN

#: Endings of detached signatures, behind the file's name.
ENDINGS: Final = (".gpg", ".sign", ".asc", ".sig")

CLEARSIGNED: Final = b"-----BEGIN PGP SIGNED MESSAGE-----"
_ARMOUR: Final = re.compile(
    rb"-----BEGIN PGP PUBLIC KEY BLOCK-----\r?\n(?:[^\r\n]+\r?\n)*\r?\n(.*?)"
    rb"(?:\r?\n=[A-Za-z0-9+/]{4})?\r?\n-----END PGP PUBLIC KEY BLOCK-----",
    re.DOTALL,
)
_BEGINS: Final = b"-----BEGIN PGP PUBLIC KEY BLOCK-----"
#: Time limit of gpgv in seconds.
_LONGEST: Final = 10
#: Limit of gpgv's address space in bytes, and of each of its outputs: more than the longest list.
_MEMORY: Final = 256 * 1024 * 1024
_OUTPUT: Final = 2 * 1024 * 1024
_LIMITS: Final = {"AS": _MEMORY, "CPU": _LONGEST, "FSIZE": _OUTPUT, "CORE": 0, "NOFILE": 64}

#: The tag of a public key, with which a keyring begins (RFC 9580, sections 5 and 10.1).
_PUBLIC_KEY: Final = 6
#: The magic number of GnuPG's keyboxes, and its place (GnuPG's kbx/keybox-blob.c).
_KEYBOX: Final = b"KBXf"
_KEYBOX_AT: Final = 8


class NotSigned(Exception):
    """The text has no valid signature by a key of the keyring; the message gives the reason."""


class Keyring:
    """The keys of accepted signatures.

    :param path: a keyring exported by GnuPG, armoured or not.
    :param jail: confines gpgv.
    :raises ConfigurationError: if the keyring cannot be read or contains no public key, if gpgv is
        not installed, or if programs have to be confined and cannot be.
    """

    def __init__(self, path: Path, jail: Jail) -> None:
        program = shutil.which("gpgv")
        if program is None:
            raise ConfigurationError(
                "keyring: gpgv is not installed. Install the program: apt-get install gpgv"
            )
        try:
            jail.check()
            self._keys = keys_in(path)
        except NotConfined as error:
            raise ConfigurationError(f"keyring: {error}") from error
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"keyring: {path}: {error}") from error
        self._program = program
        self._jail = jail

    def verify(self, text: bytes, signature: bytes | None) -> bytes:
        """Return the signed part of ``text``.  Blocks for ten seconds at most.

        :param signature: a detached signature; None if the text contains its signature.
        :raises NotSigned: if the text has no valid signature, or a wrong one.
        :raises SourceFailed: if the machine lacks the resources to verify the signature.
        """
        try:
            return self._verify(text, signature)
        except (OSError, subprocess.SubprocessError, NotConfined) as error:
            raise SourceFailed(
                "The signature of the list of digests cannot be verified for now."
            ) from error

    def _verify(self, text: bytes, signature: bytes | None) -> bytes:
        with ExitStack() as stack:
            given = [text] if signature is None else [signature, text]
            keys, *files = (stack.enter_context(in_memory(each)) for each in (self._keys, *given))
            signed, status = (stack.enter_context(_output()) for _ in range(2))
            # gpgv finds nothing in its home, and says nothing to people.
            options = ["--homedir", "/dev/null", "--log-file", "/dev/null"]
            options += ["--keyring", f"/proc/self/fd/{keys}", "--status-fd", "2"]
            if signature is None:
                options += ["--output", "-"]
            bounds = Bounds(reads=[keys, *files], limits=_LIMITS, dies_with_us=True)
            names = [f"/proc/self/fd/{each}" for each in files]
            ended = subprocess.run(  # noqa: S603 - no shell, and no word of others
                self._jail.command([self._program, *options, "--", *names], bounds),
                stdin=subprocess.DEVNULL,
                stdout=signed,
                stderr=status,
                pass_fds=[keys, *files],
                env={"LC_ALL": "C"},
                cwd="/",
                timeout=_LONGEST,
                check=False,
            )
            if ended.returncode < 0 or ended.returncode == NOT_RUN:
                # gpgv was killed or never ran: no statement about the signature.
                ended.check_returncode()
            _check(os.pread(status, _OUTPUT, 0))
            return text if signature is not None else os.pread(signed, _OUTPUT, 0)


@contextmanager
def _output() -> Iterator[int]:
    """Yield the descriptor of an empty file in memory, for an output of gpgv."""
    descriptor = os.memfd_create("bootvol", os.MFD_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _check(status: bytes) -> None:
    """Check the status lines of gpgv (GnuPG's doc/DETAILS, "General status codes").

    The exit status is not sufficient: some of several signatures may be by unknown keys.

    :raises NotSigned: if a signature is wrong, or if no signature is good.
    """
    words = {line.split()[1] for line in status.splitlines() if line.startswith(b"[GNUPG:] ")}
    if b"BADSIG" in words:
        raise NotSigned("its signature is wrong")
    if b"GOODSIG" not in words:
        expired = words & {b"EXPSIG", b"EXPKEYSIG", b"REVKEYSIG"}
        raise NotSigned(
            "its signature, or the key of that, has expired or been revoked"
            if expired
            else "no key of the operator's keyring has signed it"
        )


def keys_in(path: Path) -> bytes:
    """Return the public keys in a file, in the binary form for gpgv.  Blocks on the disk.

    :raises OSError: if the file cannot be read.
    :raises ValueError: if the file contains no public key.
    """
    try:
        keys = _binary(reading.content(path))
    except binascii.Error:
        raise ValueError("the armour of the keys is damaged") from None
    if not (_begins_with_key(keys) or keys[_KEYBOX_AT:].startswith(_KEYBOX)):
        raise ValueError("the file contains no public key")
    return keys


def _begins_with_key(keys: bytes) -> bool:
    """Tell whether the first packet is a public key, in the old or new format of packets."""
    first = keys[0] if keys else 0
    tag = first & 0x3F if first & 0x40 else first >> 2 & 0x0F
    return bool(first & 0x80) and tag == _PUBLIC_KEY


def _binary(keys: bytes) -> bytes:
    """Return keys in the binary form for gpgv (RFC 9580, section 6)."""
    if not keys.lstrip().startswith(_BEGINS):
        return keys
    return b"".join(base64.b64decode(body) for body in _ARMOUR.findall(keys))
