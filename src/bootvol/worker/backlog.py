"""Log the pending work that a daemon finds at its start, and the work that cannot be done."""

from __future__ import annotations

from collections.abc import Collection

from twisted.logger import Logger

from bootvol.backends import Backends
from bootvol.store import unsettled
from bootvol.store.database import Database

_log = Logger()


async def tell(database: Database, backends: Backends, sources: Collection[str]) -> None:
    """Log the pending work, and the rows on backends or of sources that are not configured.

    :param sources: names of the configured image sources.
    """
    work = await database.read(unsettled.work)
    found = [f"{_counted(count, kind)} {status}" for (kind, status), count in sorted(work.items())]
    _log.info("unfinished work continues: {work}", work=", ".join(found) or "none")
    elsewhere = await database.read(unsettled.elsewhere, backends.names, backends.host)
    for backend in sorted({name for name, _ in elsewhere}):
        lies = [_counted(n, kind) for (name, kind), n in elsewhere.items() if name == backend]
        _log.warn(
            "backend {name} is not configured here, but has {lies}: work on them waits for a"
            " daemon with a backend of this name",
            name=backend,
            lies=" and ".join(lies),
        )
    waiting = await database.read(unsettled.imports_elsewhere, sources)
    for source, count in sorted(waiting.items()):
        _log.warn(
            "source {name} is not configured here, but {imports} of its images: this work waits for"
            " a daemon with a source of this name",
            name=source,
            imports=f"{count} volume{'s are' if count > 1 else ' is'} to be made",
        )


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' if count > 1 else ''}"
