"""Small files are complete or absent, and leave no drafts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bootvol import files


def test_a_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in b"one", b"two":
        files.replace(path, content)
        assert path.read_bytes() == content
        assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["file"]


def test_the_first_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.create(path, b"one")
    with pytest.raises(FileExistsError):
        files.create(path, b"two")
    assert path.read_bytes() == b"one"
    assert os.listdir(tmp_path) == ["file"]


def test_the_former_file_remains_after_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    files.replace(path, b"one")

    def fail(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        files.replace(path, b"two")
    assert path.read_bytes() == b"one"
    assert os.listdir(tmp_path) == ["file"]


def test_a_draft_left_by_a_killed_process_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "file.new").write_bytes(b"longer than the new content")
    files.replace(tmp_path / "file", b"new", draft="file.new")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file"]


def test_a_link_in_the_place_of_the_draft_is_not_followed(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"secret")
    (tmp_path / "file.new").symlink_to(other)
    with pytest.raises(OSError, match="symbolic links"):
        files.replace(tmp_path / "file", b"new", draft="file.new")
    assert other.read_bytes() == b"secret"
