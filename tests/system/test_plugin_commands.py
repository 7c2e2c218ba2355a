"""What operators and authors see of plugins: which there are, and which promises they keep."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.daemons import configuration
from tests.processes import cli, process

FORGETFUL = """
from bootvol.interfaces import BackendPlugin
from bootvol.options import Options
from bootvol.testing.memory import MemoryBackend
from pydantic import Field


class Settings(Options):
    shelf: int = Field(default=3, description="Where it forgets things.")


class Forgetful(MemoryBackend):
    async def open_writer(self, volume):
        writer = await super().open_writer(volume)

        async def zero(offset, length):
            pass

        writer.zero = zero
        return writer


PLUGIN = BackendPlugin(
    Settings, lambda settings, context: Forgetful(context.name, context.reactor)
)
"""
BACKEND = '[[backends]]\nname = "shelf"\nplugin = "forgetful"\n'


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """The environment in which a wrong plugin and one that does not load are installed."""
    folder = tmp_path / "installed"
    about = folder / "forgetful-1.5.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: forgetful\nVersion: 1.5\n")
    (about / "entry_points.txt").write_text(
        "[bootvol.backends]\nforgetful = forgetful:PLUGIN\nlost = nowhere_to_be_found:PLUGIN\n"
    )
    (folder / "forgetful.py").write_text(FORGETFUL)
    return {"PYTHONPATH": str(folder)}


def test_plugins_are_listed(installed: dict[str, str]) -> None:
    listed = json.loads(cli("plugin", "list", "--json", env=installed).stdout)
    found = {(each["kind"], each["name"]): each for each in listed}
    assert found["source", "http"]["distribution"] == "bootvol"
    assert found["backend", "file"]["error"] is None
    assert found["backend", "forgetful"] == {
        "kind": "backend",
        "name": "forgetful",
        "distribution": "forgetful",
        "version": "1.5",
        "error": None,
        "settings": [
            {
                "key": "shelf",
                "type": "int",
                "required": False,
                "default": "3",
                "meaning": "Where it forgets things.",
            }
        ],
    }
    assert "nowhere_to_be_found" in found["backend", "lost"]["error"]
    shown = cli("plugin", "list", env=installed).stdout
    assert "backend forgetful (forgetful 1.5)" in shown
    assert "  shelf (int, default 3): Where it forgets things." in shown
    assert "  does not load: plugin 'lost' cannot be imported" in shown
    assert "  pool (str | None, default None)" in shown


def test_a_right_backend_is_checked_beside_the_daemon(tmp_path: Path) -> None:
    with process(tmp_path) as daemon:
        assert daemon.cli("volume", "create", "--size", "1", "--wait").returncode == 0
        before = {each.name: each.stat() for each in daemon.volumes.iterdir()}
        checked = cli("plugin", "check", "local", "--config", str(daemon.config))
        assert checked.returncode == 0, checked.stdout + checked.stderr
        assert "holds        takes writes at once\n" in checked.stdout
        assert "FAILS" not in checked.stdout
        assert "backend 'local' keeps the contract" in checked.stdout
        assert {each.name for each in daemon.volumes.iterdir()} == set(before)
        for name, stat in before.items():
            assert (daemon.volumes / name).stat().st_mtime_ns == stat.st_mtime_ns


def test_a_broken_backend_fails_by_the_promise(tmp_path: Path, installed: dict[str, str]) -> None:
    config = tmp_path / "x.conf"
    config.write_text(configuration(1, BACKEND))
    checked = cli("plugin", "check", "shelf", "--config", str(config), env=installed)
    assert checked.returncode == 1
    assert "FAILS        zeroes over data\n" in checked.stdout
    assert "holds        takes writes at once\n" in checked.stdout
    assert "backend 'shelf' breaks the contract" in checked.stderr


def test_what_cannot_be_checked(tmp_path: Path) -> None:
    config = tmp_path / "x.conf"
    config.write_text(configuration(1))
    unknown = cli("plugin", "check", "images", "--config", str(config))
    assert unknown.returncode == 1
    assert "has no backend 'images'; it has: local" in unknown.stderr
    # What the extra brings, gone.
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['pytest_twisted'] = None\n")
    env = {"PYTHONPATH": str(tmp_path)}
    bare = cli("plugin", "check", "local", "--config", str(config), env=env)
    assert bare.returncode == 1
    assert "pip install 'bootvol[testing]'" in bare.stderr
    assert "Traceback" not in bare.stderr
