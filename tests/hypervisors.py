"""A hypervisor without real machines, as a plugin for a single daemon."""

from __future__ import annotations

from pathlib import Path
from typing import Final

#: The configuration that selects the plugin.
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
    """Install the plugin below a folder; return the environment of a daemon that should use it."""
    about = folder / "installed" / "memory_machines-1.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: memory-machines\nVersion: 1\n")
    (about / "entry_points.txt").write_text(
        "[bootvol.hypervisors]\nmemory = memory_machines:PLUGIN\n"
    )
    (folder / "installed" / "memory_machines.py").write_text(_PLUGIN)
    return {"PYTHONPATH": str(folder / "installed")}
