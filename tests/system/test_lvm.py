"""What runs inside the machine of :mod:`tests.lvm`, with its report."""

from __future__ import annotations

import pytest

from tests import lvm


@pytest.mark.parametrize("module", ["inside_contract", "inside_faults", "inside_daemon"])
def test_inside(module: str) -> None:
    ended = lvm.ended(module)
    print(ended.stdout)
    assert ended.returncode == 0, ended.stdout
