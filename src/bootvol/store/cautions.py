"""The warnings in rows of imports and of cached images."""

from __future__ import annotations

from sqlalchemy import Row

from bootvol.model import Caution


def warnings_of(row: Row[object]) -> tuple[Caution, ...]:
    """Return the warnings in the row of an import or of a cached image."""
    return tuple(Caution(**each) for each in row.warnings or ())
