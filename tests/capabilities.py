"""The table of capabilities in docs/backends.md: made by ``python -m tests.capabilities``."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import attrs

from bootvol.interfaces import Capabilities
from bootvol.reactors import installed
from bootvol.threads import Threads
from bootvol_plugins.file import FileBackend
from bootvol_plugins.lvm.thick import ThickBackend
from bootvol_plugins.lvm.thin import ThinBackend
from bootvol_plugins.rbd import backend as rbd
from bootvol_plugins.rbd.options import RbdOptions

DOCUMENT: Final = Path(__file__).parents[1] / "docs" / "backends.md"
_BEGIN: Final = "<!-- made by: python -m tests.capabilities -->\n"
_END: Final = "<!-- end -->\n"


def declared() -> dict[str, Capabilities]:
    """Return the capabilities of each first-party backend, by its settings and its disk."""
    threads = Threads(installed(), "none", 1)
    nowhere = Path("/nowhere")
    return {
        "`file` on xfs, btrfs": FileBackend("x", nowhere, threads, clones=True).capabilities,
        "`file` elsewhere": FileBackend("x", nowhere, threads).capabilities,
        "`lvm`, thick": ThickBackend.capabilities,
        "`lvm`, thin (`pool`)": ThinBackend.capabilities,
        "`rbd`": rbd.declared(RbdOptions(pool="x", monitors=["x"])),
        "`rbd` with `image_pools`": rbd.declared(
            RbdOptions(pool="x", monitors=["x"], image_pools=["y"])
        ),
    }


def table() -> str:
    """Return the table in Markdown, with a row for each field of ``Capabilities``."""
    columns = declared()
    lines = [["", *columns], ["---"] * (1 + len(columns))]
    for field in attrs.fields(Capabilities):
        values = [_word(getattr(each, field.name)) for each in columns.values()]
        lines.append([field.name.replace("_", " "), *values])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines).replace("|  |", "| |")


def rewritten(document: str) -> str:
    """Return the document with the table that the code now gives."""
    before, _, rest = document.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    assert end, "the document has no place for the table"
    return f"{before}{_BEGIN}\n{table()}\n{_END}{after}"


def _word(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    DOCUMENT.write_text(rewritten(DOCUMENT.read_text()))
