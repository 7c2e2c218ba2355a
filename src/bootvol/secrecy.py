"""Checks that other users can neither read nor replace the files that the configuration names.

The start of the daemon refuses fatal faults.  SIGHUP does the same for the files that are read
again.  Paths in a plugin's table are checked together with the rest of the table.  ``private.py``
has the rules.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import attrs

from bootvol import endpoints, private, reading
from bootvol.checks import Mistake
from bootvol.private import Kept
from bootvol.settings import Settings

#: Part of every PEM file with a key (RFC 7468, sections 10 and 11, and OpenSSL's older forms).
_KEY: Final = b"PRIVATE KEY-----"


def of_files(config: Settings) -> Iterator[Mistake]:
    """Check the configuration file, and the secret files that were read with it.  Blocks."""
    yield from _configuration(config)
    for key, path in config.secret_files:
        yield from private.check(key, path, Kept.SECRET)


def of_endpoint(key: str, endpoint: str) -> Iterator[Mistake]:
    """Check the key and the certificates of an endpoint.  Blocks.

    An unreadable file is no fault here: the code that loads the file reports the fault.

    :param key: see :attr:`bootvol.checks.Mistake.key`.
    """
    for path in endpoints.files(endpoint):
        with suppress(OSError):
            kept = Kept.SECRET if _KEY in reading.content(path) else Kept.TRUSTED
            yield from private.check(key, path, kept)


def of_folders(config: Settings) -> Iterator[Mistake]:
    """Check the database and the folders of the daemon itself.  Blocks."""
    if config.database.get_backend_name() == "sqlite":
        file = Path(config.database.database or "")
        yield from private.check("state.url", file.parent, Kept.FOLDER)
        yield from private.check("state.url", file, Kept.SECRET)
    for place in ("state", "imports", "exports"):
        table = getattr(config, place)
        if table is not None:
            for mistake in private.check_options(table):
                yield attrs.evolve(mistake, key=f"{place}.{mistake.key}")


def _configuration(config: Settings) -> Iterator[Mistake]:
    key, path = "the configuration file", config.file.absolute()
    found = list(private.check(key, path, Kept.TRUSTED))
    yield from found
    if config.holds_secrets and not found:
        # Not fatal: many configuration files in use are readable, and an update of bootvol must
        # not stop their daemons.
        for mistake in private.check(key, path, Kept.SECRET):
            yield attrs.evolve(mistake, fatal=False)
