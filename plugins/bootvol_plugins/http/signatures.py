"""Whether somebody whom the operator trusts has signed a list: gpgv tells."""

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

#: What a detached signature of a file is called, after the file's own name.
ENDINGS: Final = (".gpg", ".sign", ".asc", ".sig")

CLEARSIGNED: Final = b"-----BEGIN PGP SIGNED MESSAGE-----"
_ARMOUR: Final = re.compile(
    rb"-----BEGIN PGP PUBLIC KEY BLOCK-----\r?\n(?:[^\r\n]+\r?\n)*\r?\n(.*?)"
    rb"(?:\r?\n=[A-Za-z0-9+/]{4})?\r?\n-----END PGP PUBLIC KEY BLOCK-----",
    re.DOTALL,
)
_BEGINS: Final = b"-----BEGIN PGP PUBLIC KEY BLOCK-----"
#: Seconds that gpgv may take, and the most bytes of what it says that are kept.
_LONGEST: Final = 10.0


class NotSigned(Exception):
    """No key of the keyring has signed this; the text says why."""


class Keyring:
    """The keys that lists must be signed with.

    :param path: a keyring as GnuPG exports it, armoured or not.
    :raises ConfigurationError: it cannot be read, or gpgv is not installed.
    """

    def __init__(self, path: Path) -> None:
        program = shutil.which("gpgv")
        if program is None:
            raise ConfigurationError("keyring: gpgv is not there; install Debian's package gpgv")
        try:
            self._keys = _binary(reading.content(path))
        except (OSError, binascii.Error) as error:
            raise ConfigurationError(f"keyring: {path}: {error}") from error
        if not self._keys:
            raise ConfigurationError(f"keyring: {path}: there is no key in it")
        self._program = program

    def verify(self, text: bytes, signature: bytes | None) -> bytes:
        """Return what of ``text`` is signed.  Blocks.

        :param signature: a detached one; None where the text holds its own.
        :raises NotSigned: there is no valid signature, or one that is wrong.
        :raises SourceFailed: it cannot be told, since the machine lacks something.
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
                # A signal, which says nothing of the signature.
                ended.check_returncode()
            _check(ended.stdout)
            if signature is not None:
                return text
            return signed.read_bytes() if signed.exists() else b""


def _check(status: bytes) -> None:
    """Judge what gpgv says (GnuPG's doc/DETAILS, "General status codes").

    Its exit status does not do: of several signatures some may be of keys that nobody here has.
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
    """Return keys as gpgv reads them (RFC 9580, section 6)."""
    if not keys.lstrip().startswith(_BEGINS):
        return keys
    return b"".join(base64.b64decode(body) for body in _ARMOUR.findall(keys))
