"""The plugin's private files.  Each file is either complete or absent."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from bootvol import private, reading
from bootvol.errors import ConfigurationError
from bootvol.private import Kept

#: Length of a key in bytes.
KEY_BYTES: Final = 32


def replace(path: Path, content: bytes) -> None:
    """Write a file in place of the former one.  The new content survives a loss of power.

    :raises OSError: if the file cannot be written.  The former file then remains.
    """
    _write(path, content, os.replace)


def key_path(directory: Path, file: Path | None) -> Path:
    """Return the path of the signing key; see :func:`signing_key`."""
    return file or directory / "key"


def signing_key(directory: Path, file: Path | None) -> bytes:
    """Return the key that signs the tokens.

    :param directory: folder of the plugin, created if missing.  If ``file`` is None, the key is a
        file in this folder, also created if missing.
    :param file: path of another key.
    :raises ConfigurationError: if the key cannot be read or created, is too short, or is readable
        for others.
    """
    path = key_path(directory, file)
    try:
        private.make("identity.directory", directory)
        if file is None and not path.exists():
            # If two daemons create the key at the same time, both use the first one.
            with suppress(FileExistsError):
                _write(path, secrets.token_bytes(KEY_BYTES), os.link)
        named = "identity.directory" if file is None else "identity.key_file"
        for mistake in private.check(named, path, Kept.SECRET):
            raise ConfigurationError(str(mistake))
        key = reading.content(path)
    except OSError as error:
        raise ConfigurationError(f"identity: {path}: {error.strerror}") from error
    if len(key) < KEY_BYTES:
        raise ConfigurationError(f"identity: {path}: a key has at least {KEY_BYTES} bytes")
    return key


def _write(path: Path, content: bytes, publish: Callable[[Path, Path], None]) -> None:
    new = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    try:
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        publish(new, path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        new.unlink(missing_ok=True)
