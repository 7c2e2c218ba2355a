"""What the commands print."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import click

from bootvol.cli.text import as_json as as_json
from bootvol.cli.text import shown

#: Columns that no row is wider than.
_UNFOLDED: Final = 1_000_000


def table(rows: Sequence[dict[str, Any]], columns: dict[str, str]) -> None:
    """Print rows; ``columns`` maps a field to its heading.

    A terminal has long ones folded; anything else gets one line a row.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    laid = Table(box=None, pad_edge=False)
    for heading in columns.values():
        laid.add_column(heading, overflow="fold")
    for row in rows:
        # A Text is taken as it is: in a string, brackets would be markup.
        cells = ("" if row[field] is None else str(row[field]) for field in columns)
        laid.add_row(*(Text(shown(cell)) for cell in cells))
    Console(highlight=False, width=None if sys.stdout.isatty() else _UNFOLDED).print(laid)


def line(text: str) -> None:
    """Print a line."""
    click.echo(shown(text))


def tell(text: str) -> None:
    """Say something beside what is printed: on standard error, where that is still there."""
    # A terminal that has been closed takes nothing.
    with suppress(OSError):
        click.echo(shown(text), err=True)
