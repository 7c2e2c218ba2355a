"""Checks of the database, for the start of the daemon and ``check-config --machine``."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sqlalchemy import URL

from bootvol import checks, locks
from bootvol.checks import Mistake
from bootvol.errors import ConfigurationError
from bootvol.patience import found_in_time
from bootvol.reactors import IReactor
from bootvol.store import schema
from bootvol.store.database import ROOM, Database

#: First bytes of an SQLite database (https://www.sqlite.org/fileformat.html, section 1.3).
_SQLITE: Final = b"SQLite format 3\0"


def check(url: URL, reactor: IReactor) -> Iterator[Mistake | str]:
    """Check the database; change nothing.

    :param url: as in the settings that were read.
    :param reactor: is not started.
    """
    if url.get_backend_name() == "sqlite":
        file = Path(url.database or "")
        yield from found_in_time("state.url", file, lambda: _sqlite(file))
        return
    try:
        Database(url, reactor).check()
    except ConfigurationError as error:
        # Use the first line only: SQLAlchemy and the server add more lines.
        fault = str(error).splitlines()[0]
        remedy = "Start the database, or correct the URL."
        if error.__cause__ is None:
            # The database has answered, and its text names the remedy.
            yield f"state.url: {fault}."
        else:
            yield Mistake("state.url", url.render_as_string(hide_password=True), fault, remedy)


def _sqlite(file: Path) -> Iterator[Mistake]:
    key = "state.url"
    yield from locks.check_database(file)
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            yield Mistake(key, file, "this is not a regular file", "Name another file.")
            return
        with file.open("r+b") as opened:
            begin = opened.read(len(_SQLITE))
    except (FileNotFoundError, NotADirectoryError):
        yield from checks.folder(key, file.parent)
        return
    except OSError as error:
        remedy = "Give the daemon's user the right to write the file and its folder."
        yield Mistake(key, file, f"the database cannot be opened: {error.strerror}", remedy)
        return
    if begin not in {b"", _SQLITE}:
        yield Mistake(key, file, "the file is not an SQLite database", "Name another file.")
        return
    if begin:
        yield from _content(key, file)
    if shutil.disk_usage(file.parent).free < ROOM:
        yield Mistake(key, file, "the disk is full", "Free space on the disk.", fatal=False)


def _content(key: str, file: Path) -> Iterator[Mistake]:
    """Check that the tables in an SQLite file belong to bootvol, and not to a later version."""
    try:
        # With "immutable", SQLite makes no files beside the database.
        uri = f"{file.absolute().as_uri()}?mode=ro&immutable=1"
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as database:
            names = {row[0] for row in database.execute("SELECT name FROM sqlite_schema")}
            if "alembic_version" not in names:
                if names:
                    fault = "the database holds the tables of another program"
                    yield Mistake(key, file, fault, "Name another file.")
                return
            row = database.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.Error as error:
        remedy = "Restore the file from a backup, or name another file."
        yield Mistake(key, file, f"the database cannot be read: {error}", remedy)
        return
    if row is not None and str(row[0]) > schema.REVISION:
        yield Mistake(
            key,
            file,
            f"a later version of bootvol wrote the database (schema {row[0]}; this version knows"
            f" {schema.REVISION})",
            "Install the later version of bootvol, or name another file.",
        )
