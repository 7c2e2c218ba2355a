"""Disks that are nearly all holes, beside smaller disks with the same data, and beside peers."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from tests.disks import disk
from tests.processes import Process, process

from benchmarks.bench import CONFIG, NO_CACHE, POLL, Pair, Taken, Watch, shell
from benchmarks.images import GIB, MIB, SIZE
from benchmarks.site import Site

#: Bytes of data on the large and on the plain disk; and the sizes of these disks in bytes.
_DATA: Final = SIZE // 2
_LARGE, _PLAIN = 1024 * GIB, SIZE
#: Size of a nearly empty disk, and its data, in bytes.
_EMPTY, _LITTLE = 16 * GIB, 8 * MIB


def on_holes(site: Site) -> Iterator[Pair]:
    """Compare imports, snapshots, and volumes from snapshots, on ext4."""
    folder = site.fresh()
    with disk(folder / "ext4", 8 * _LARGE, "ext4") as mounted:
        images = mounted.folder / "images"
        images.mkdir()
        _make_image(images / "large", _DATA, _LARGE)
        _make_image(images / "plain", _DATA, _PLAIN)
        _make_image(images / "empty", _LITTLE, _EMPTY)
        subprocess.run(
            ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "empty", "empty.qcow2"],
            cwd=images,
            check=True,
        )
        with process(mounted.folder, CONFIG.format(url=site.url), backend=NO_CACHE) as daemon:
            yield from _rows(_Steps(daemon), mounted.folder)


def _make_image(path: Path, data: int, size: int) -> None:
    """Make an image with data in sixteen places."""
    piece = data // 16
    with path.open("xb") as file:
        for number in range(16):
            file.seek(number * (size // 16) // MIB * MIB)
            file.write(os.urandom(piece))
        file.truncate(size)


def _rows(steps: _Steps, folder: Path) -> Iterator[Pair]:
    what = f"1 TiB with {_DATA / GIB:g} GiB of data"
    beside = f"the same of {_PLAIN / GIB:g} GiB"
    large, plain = steps.of("large", _LARGE), steps.of("plain", _PLAIN)
    for step, ours, theirs in zip(
        ("directory", "snapshot", "volume of it"), large, plain, strict=True
    ):
        yield Pair(f"{step}, {what}", ours, beside, theirs, "1.5", _DATA)
    what = f"{_EMPTY / GIB:g} GiB with {_LITTLE / MIB:g} MiB of data"
    images = folder / "images"
    for name, options in (("empty", "-f raw"), ("empty.qcow2", "-f qcow2")):
        image, *rest = steps.of(name, _EMPTY)
        peer = _peer(folder, f"qemu-img convert {options} -O raw {images / name} $OUT; sync $OUT")
        yield Pair(
            f"directory, {name[6:] or 'raw'}, {what}",
            image,
            "qemu-img convert, fsync",
            peer,
            "-",
            _LITTLE,
        )
    copying = _peer(folder, f"cp --sparse=always {images / 'empty'} $OUT; sync $OUT")
    yield Pair(f"snapshot, {what}", rest[0], "cp --sparse=always, fsync", copying, "-", _LITTLE)


def _peer(folder: Path, command: str) -> Callable[[], Taken]:
    out = folder / "out"

    def run() -> Taken:
        taken = shell(command, OUT=str(out))
        out.unlink()
        return taken

    return run


class _Steps:
    """Actions on a daemon, each measured from POST to available."""

    def __init__(self, daemon: Process) -> None:
        self._daemon = daemon

    def of(self, image: str, size: int) -> list[Callable[[], Taken]]:
        """Return functions that measure an import, a snapshot, and a volume from a snapshot.

        :param size: size of the volumes in bytes.
        """
        gib = -(-size // GIB)

        def imported() -> Taken:
            taken, number = self._made("volume", {"size": gib, "imageRef": image})
            self._daemon.delete(number)
            self._daemon.until_settled()
            return taken

        def snapshot() -> Taken:
            _, volume = self._made("volume", {"size": gib, "imageRef": image})
            taken, number = self._made("snapshot", {"volume_id": volume})
            self._remove(number, volume)
            return taken

        def volume() -> Taken:
            _, first = self._made("volume", {"size": gib, "imageRef": image})
            _, number = self._made("snapshot", {"volume_id": first})
            taken, second = self._made("volume", {"size": gib, "snapshot_id": number})
            self._remove(number, first, second)
            return taken

        return [imported, snapshot, volume]

    def _made(self, kind: str, wanted: dict[str, Any]) -> tuple[Taken, int]:
        """Make a volume or snapshot; return the time taken, and the id."""
        watch = Watch()
        number = int(self._daemon.call("POST", f"os-{kind}s", {kind: wanted})[kind]["id"])
        path = f"os-{kind}s/{number}"
        while (now := self._daemon.get(path)[kind]["status"]) in {"creating", "downloading"}:
            time.sleep(POLL)
        if now != "available":
            raise SystemExit(f"{path} is {now}: {self._daemon.get(f'{path}/error')}")
        return watch.taken(), number

    def _remove(self, snapshot: int, *volumes: int) -> None:
        self._daemon.call("DELETE", f"os-snapshots/{snapshot}")
        for each in volumes:
            self._daemon.delete(each)
        self._daemon.until_settled()
