"""Machines boot from volumes: the purpose of bootvol."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from demo.bootdisk import HELLO, disk

from bootvol.testing.backends import noise
from tests.images import convert
from tests.processes import Process, process

#: From Debian's package ipxe.
IPXE = "/usr/lib/ipxe/ipxe.iso"
#: The tests accept another image: ``make test IMAGE=path``.
IMAGES = sorted({IPXE, os.environ.get("IMAGE") or IPXE})
NOTHING = "No bootable device."


def boot(daemon: Process, volume: int, seconds: int = 20) -> str:
    """Boot a volume until a time limit; return the machine's output."""
    booted = daemon.cli("volume", "boot", str(volume), "--seconds", str(seconds))
    assert booted.returncode == 0, booted.stderr
    return booted.stdout


def make(daemon: Process, image: str) -> int:
    """Create a volume from an image, and wait for the end."""
    volume = daemon.create(image)
    assert set(daemon.until_settled()) == {"available"}
    return volume


def test_our_own_disk_boots_and_remembers(tmp_path: Path) -> None:
    with process(tmp_path) as daemon:
        (daemon.images / "bootdisk.raw").write_bytes(disk())
        first, second = make(daemon, "bootdisk.raw"), make(daemon, "bootdisk.raw")
        for count in ("01", "02", "03"):
            assert f"{HELLO}{count}." in boot(daemon, first)
        # The volume outlives its machines and the daemon; another volume is unchanged.
        daemon.stop()
        daemon.start()
        assert f"{HELLO}04." in boot(daemon, first)
        assert f"{HELLO}01." in boot(daemon, second)


def test_a_disk_in_a_container_boots(tmp_path: Path) -> None:
    with process(tmp_path) as daemon:
        (daemon.images / "bootdisk").write_bytes(convert(tmp_path, "qcow2", disk=disk()))
        volume = make(daemon, "bootdisk")
        assert f"{HELLO}01." in boot(daemon, volume)
        assert f"{HELLO}02." in boot(daemon, volume)


@pytest.mark.parametrize("image", IMAGES)
def test_a_disk_that_nobody_here_made_boots(tmp_path: Path, image: str) -> None:
    with process(tmp_path) as daemon:
        (daemon.images / "image").symlink_to(Path(image).resolve(strict=True))
        said = boot(daemon, make(daemon, "image"), 8)
        if image == IPXE:
            assert "Open Source Network Boot Firmware" in said
        _, started, guest = said.partition("Booting from Hard Disk")
        assert started
        assert not guest.lstrip(".\r\n").startswith(("Boot failed", NOTHING)), said


def test_a_volume_without_a_boot_sector_does_not(tmp_path: Path) -> None:
    """The negative control of the tests above."""
    with process(tmp_path) as daemon:
        (daemon.images / "noise.raw").write_bytes(noise(4096))
        assert NOTHING in boot(daemon, make(daemon, "noise.raw"), 8)
