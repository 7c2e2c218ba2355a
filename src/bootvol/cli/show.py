"""The output of the commands."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import click

from bootvol.cli.text import as_json as as_json
from bootvol.cli.text import shown
from bootvol.jsons import JsonObject

#: A width in columns that no row exceeds.
_UNFOLDED: Final = 1_000_000


def table(rows: Sequence[JsonObject], columns: dict[str, str]) -> None:
    """Print rows. A terminal folds long rows; other outputs get one line for each row.

    :param columns: maps the fields to show to their headings.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    laid = Table(box=None, pad_edge=False)
    for heading in columns.values():
        laid.add_column(heading, overflow="fold")
    for row in rows:
        # rich prints a Text unchanged. In a plain string, brackets would be markup.
        cells = ("" if row[field] is None else str(row[field]) for field in columns)
        laid.add_row(*(Text(shown(cell)) for cell in cells))
    Console(highlight=False, width=None if sys.stdout.isatty() else _UNFOLDED).print(laid)


def line(text: str) -> None:
    """Print a line."""
    click.echo(shown(text))


def tell(text: str) -> None:
    """Print a message on standard error, if standard error is still open."""
    # A closed terminal raises OSError.
    with suppress(OSError):
        click.echo(shown(text), err=True)


class Messages:
    """Standard error for a progress bar, which must not end the command: see :func:`tell`."""

    def __init__(self) -> None:
        self._stream = sys.stderr

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text, or drop the text if standard error is closed."""
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush what was written, or drop it if standard error is closed."""
        with suppress(OSError):
            self._stream.flush()
