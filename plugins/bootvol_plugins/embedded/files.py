"""What the plugin remembers: files that are whole or not there, and nobody else's to read."""

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

#: Bytes of a key.
KEY_BYTES: Final = 32


def replace(path: Path, content: bytes) -> None:
    """Write a file, in place of what was there; it survives loss of power.

    :raises OSError: it cannot be written; what was there is there still.
    """
    _write(path, content, os.replace)


def key_path(directory: Path, file: Path | None) -> Path:
    """Return where the key lies that tokens are signed with; see :func:`signing_key`."""
    return file or directory / "key"


def signing_key(directory: Path, file: Path | None) -> bytes:
    """Return the key that tokens are signed with.

    :param directory: is made when there is none; the key lies in it and is made, too, if ``file``
        is None.
    :param file: where another one lies.
    :raises ConfigurationError: it cannot be read or made, or is too short, or others may read it.
    """
    path = key_path(directory, file)
    try:
        private.make("identity.directory", directory)
        if file is None and not path.exists():
            # Another daemon may make one at the same time: the first is everybody's.
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
