"""Hooks of pytest: the report of a crashed test process shows the cause at the end of the output.

Native code may crash, for example Ceph's library. Without these hooks, the signal and the stacks
stand only among the dots of the tests, far above the summary.
"""

from __future__ import annotations

import faulthandler
import os
import tempfile
from pathlib import Path
from typing import Any, TextIO

import pytest

from tests.waiting import LIMIT

_kept: list[TextIO] = []


def _stacks(worker: str, controller: int) -> Path:
    """Return the file that a worker's crash writes its stacks to.

    :param worker: the name that xdist gives the worker, for example ``gw0``.
    :param controller: the process id of pytest itself.
    """
    return Path(tempfile.gettempdir()) / f"bootvol-tests-{controller}-{worker}.stacks"


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Make a worker write its stacks to a file. pytest's own plugin writes them to stderr."""
    if (given := getattr(config, "workerinput", None)) is not None:
        path = _stacks(given["workerid"], os.getppid())
        _kept.append(path.open("w"))
        faulthandler.enable(file=_kept[-1])


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the file of a worker that ends well."""
    if (given := getattr(config, "workerinput", None)) is not None:
        faulthandler.disable()
        _stacks(given["workerid"], os.getppid()).unlink(missing_ok=True)


@pytest.hookimpl(optionalhook=True)
def pytest_handlecrashitem(report: Any) -> None:
    """Add to the report of a crash the worker's exit status and its stacks."""
    gateway = report.node.gateway
    path = _stacks(gateway.id, os.getpid())
    status = gateway._io.popen.wait(LIMIT)
    report.longrepr += f" (exit status {status})\n{path.read_text()}"
    path.unlink()
