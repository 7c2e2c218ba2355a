"""The modules inside the machine of :mod:`tests.lvm`, with their reports."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from tests import lvm


@pytest.mark.parametrize(
    "module", ["inside_contract", "inside_faults", "inside_daemon", "inside_adoption"]
)
def test_inside(module: str) -> None:
    # Sockets lie there, and need short paths.
    with tempfile.TemporaryDirectory(prefix="lvm") as folder:
        ended = lvm.pytest(Path(folder), module)
    print(ended.stdout)
    assert ended.returncode == 0, ended.stdout
