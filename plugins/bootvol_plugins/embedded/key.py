"""The key that signs the plugin's tokens."""

from __future__ import annotations

import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final

from bootvol import files, private, reading
from bootvol.errors import ConfigurationError
from bootvol.private import Kept

#: Length of a key in bytes.
KEY_BYTES: Final = 32


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
                files.create(path, secrets.token_bytes(KEY_BYTES))
        named = "identity.directory" if file is None else "identity.key_file"
        for mistake in private.check(named, path, Kept.SECRET):
            raise ConfigurationError(str(mistake))
        key = reading.content(path)
    except OSError as error:
        raise ConfigurationError(f"identity: {path}: {error.strerror}") from error
    if len(key) < KEY_BYTES:
        raise ConfigurationError(f"identity: {path}: a key has at least {KEY_BYTES} bytes")
    return key
