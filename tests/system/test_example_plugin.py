"""A third-party plugin: installed beside bootvol, found, correct, and in use."""

from __future__ import annotations

import json
import sys
import tarfile
from pathlib import Path

from bootvol.testing.backends import noise
from tests.processes import process, run

EXAMPLE = Path(__file__).parents[2] / "examples" / "bootvol-tar"
CONTENT = noise(1024 * 1024)


def test_the_example(tmp_path: Path) -> None:
    installed = tmp_path / "installed"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    done = run([*pip, "--target", installed, EXAMPLE])
    assert done.returncode == 0, done.stderr
    env = {"PYTHONPATH": str(installed)}

    tested = run([sys.executable, "-m", "pytest", "-q", EXAMPLE], env, cwd=EXAMPLE)
    assert tested.returncode == 0, tested.stdout
    assert " passed" in tested.stdout

    disk = tmp_path / "disk.raw"
    disk.write_bytes(CONTENT)
    with tarfile.open(tmp_path / "images.tar", "w:") as archive:
        archive.add(disk, "folder/disk.raw")
    more = '[[sources]]\nname = "archive"\nplugin = "tar"\narchive = "images.tar"\n'
    with process(tmp_path, more, env) as daemon:
        (image,) = json.loads(daemon.cli("image", "list", "--json").stdout)
        assert image["id"] == "folder/disk.raw"
        daemon.create("folder/disk.raw")
        assert daemon.until_settled() == ["available"]
        (file,) = daemon.files()
        with file.open("rb") as volume:
            assert volume.read(len(CONTENT)) == CONTENT
