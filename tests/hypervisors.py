"""A hypervisor that starts nothing, as a plugin for one daemon alone."""

from __future__ import annotations

from pathlib import Path
from typing import Final

#: What the configuration says, to have it.
MEMORY: Final = """
[hypervisor]
plugin = "memory"
"""
_PLUGIN: Final = """\
from bootvol.interfaces import HypervisorPlugin
from bootvol.options import Options
from bootvol.testing.machines import MemoryHypervisor

PLUGIN = HypervisorPlugin(Options, lambda _, own: MemoryHypervisor(own.name, own.reactor))
"""


def installed(folder: Path) -> dict[str, str]:
    """Install it below a folder; return the environment of a daemon that should find it."""
    about = folder / "installed" / "memory_machines-1.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: memory-machines\nVersion: 1\n")
    (about / "entry_points.txt").write_text(
        "[bootvol.hypervisors]\nmemory = memory_machines:PLUGIN\n"
    )
    (folder / "installed" / "memory_machines.py").write_text(_PLUGIN)
    return {"PYTHONPATH": str(folder / "installed")}
