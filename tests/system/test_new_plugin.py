"""A plugin begun by docs/plugin-authors.md passes its tests, and stores volumes."""

from __future__ import annotations

import sys
from pathlib import Path

from bootvol.testing import faults
from bootvol.testing.backends import noise
from tests.processes import cli, process, run

DOCUMENT = Path(__file__).parents[2] / "docs" / "plugin-authors.md"
CONTENT = noise(1024 * 1024)
BACKEND = '[[backends]]\nname = "mine"\nplugin = "wood_shelf"\ndirectory = "shelves"\n'


def test_from_nothing_to_a_volume(tmp_path: Path) -> None:
    begun = cli("plugin", "new", "wood_shelf", cwd=tmp_path)
    assert begun.returncode == 0, begun.stderr
    project = tmp_path / "bootvol-wood_shelf"
    assert "shelf" not in "".join(
        each.read_text().replace("wood_shelf", "") for each in project.rglob("*.*")
    ).replace("WoodShelf", "")

    installed = tmp_path / "installed"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    done = run([*pip, "--target", installed, project])
    assert done.returncode == 0, done.stderr
    env = {"PYTHONPATH": str(installed)}

    tested = run([sys.executable, "-m", "pytest", "-q"], env, cwd=project)
    assert tested.returncode == 0, tested.stdout
    assert " passed" in tested.stdout
    typed = run([sys.executable, "-m", "mypy", "bootvol_wood_shelf.py"], cwd=project)
    assert typed.returncode == 0, typed.stdout

    with process(tmp_path, env=env, first=BACKEND) as daemon:
        checked = cli("plugin", "check", "mine", "--config", str(daemon.config), env=env)
        assert checked.returncode == 0, checked.stdout + checked.stderr
        (daemon.images / "disk.raw").write_bytes(CONTENT)
        daemon.create("disk.raw")
        assert daemon.until_settled() == ["available"]
        (file,) = (tmp_path / "shelves").iterdir()
        with file.open("rb") as volume:
            assert volume.read(len(CONTENT)) == CONTENT


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "bootvol-mine").mkdir()
    there = cli("plugin", "new", "mine", cwd=tmp_path)
    assert there.returncode == 1
    assert "bootvol-mine already exists" in there.stderr
    assert list((tmp_path / "bootvol-mine").iterdir()) == []


def test_names_that_are_none(tmp_path: Path) -> None:
    for name in ("", "Mine", "my-own", "../mine", "1st", "x" * 33):
        refused = cli("plugin", "new", name, cwd=tmp_path)
        assert refused.returncode == 1
        assert "is not a valid name" in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_document_shows_what_is_there(tmp_path: Path) -> None:
    """The document quotes the generated plugin, or the docstrings of the suite."""
    assert cli("plugin", "new", "shelf", cwd=tmp_path).returncode == 0
    project = tmp_path / "bootvol-shelf"
    there = (faults.__doc__ or "") + "".join(
        each.read_text() for each in project.rglob("*") if each.is_file()
    )
    quoted = [line.strip() for line in DOCUMENT.read_text().splitlines() if line[:4] == "    "]
    commands = ("pip install", "bootvol plugin", "cd ")
    shown = [line for line in quoted if not line.startswith(commands)]
    assert len(shown) > 5
    assert [line for line in shown if line not in there] == []
