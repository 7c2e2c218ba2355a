"""Verification of a list's signature by gpgv, with the operator's keys."""

from __future__ import annotations

import base64
import binascii
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from bootvol import reading
from bootvol.errors import ConfigurationError, SourceFailed

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
_LONGEST: Final = 10.0


class NotSigned(Exception):
    """The text has no valid signature by a key of the keyring; the message gives the reason."""


class Keyring:
    """The keys of accepted signatures.

    :param path: a keyring exported by GnuPG, armoured or not.
    :raises ConfigurationError: if the keyring cannot be read, or if gpgv is not installed.
    """

    def __init__(self, path: Path) -> None:
        program = shutil.which("gpgv")
        if program is None:
            raise ConfigurationError(
                "keyring: gpgv is not installed. Install the program: apt-get install gpgv"
            )
        try:
            self._keys = _binary(reading.content(path))
        except (OSError, binascii.Error) as error:
            raise ConfigurationError(f"keyring: {path}: {error}") from error
        if not self._keys:
            raise ConfigurationError(f"keyring: {path}: the file contains no key")
        self._program = program

    def verify(self, text: bytes, signature: bytes | None) -> bytes:
        """Return the signed part of ``text``.  Blocks.

        :param signature: a detached signature; None if the text contains its signature.
        :raises NotSigned: if the text has no valid signature, or a wrong one.
        :raises SourceFailed: if the machine lacks the resources to verify the signature.
        """
        try:
            return self._verify(text, signature)
        except (OSError, subprocess.SubprocessError) as error:
            raise SourceFailed(
                "The signature of the list of digests cannot be verified for now."
            ) from error

    def _verify(self, text: bytes, signature: bytes | None) -> bytes:
        with tempfile.TemporaryDirectory(prefix="bootvol-gpgv-") as folder:
            home = Path(folder)
            keys, given, signed = home / "keys.gpg", home / "text", home / "signed"
            keys.write_bytes(self._keys)
            given.write_bytes(text)
            files = [str(given)]
            if signature is not None:
                (home / "signature").write_bytes(signature)
                files.insert(0, str(home / "signature"))
            options = ["--homedir", folder, "--keyring", str(keys), "--status-fd", "1"]
            if signature is None:
                options += ["--output", str(signed)]
            ended = subprocess.run(  # noqa: S603 - no shell, and no word of others
                [self._program, *options, "--", *files],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_LONGEST,
                check=False,
            )
            if ended.returncode < 0:
                # A signal ended gpgv: no statement about the signature.
                ended.check_returncode()
            _check(ended.stdout)
            if signature is not None:
                return text
            return signed.read_bytes() if signed.exists() else b""


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


def _binary(keys: bytes) -> bytes:
    """Return keys in the binary form for gpgv (RFC 9580, section 6)."""
    if not keys.lstrip().startswith(_BEGINS):
        return keys
    return b"".join(base64.b64decode(body) for body in _ARMOUR.findall(keys))
