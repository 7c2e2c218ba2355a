"""Machines boot from volumes: what bootvol is for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from demo.bootdisk import HELLO, disk

from bootvol.testing.backends import noise
from tests.processes import Process, process

#: Made by nobody here: Debian's package ipxe.
IPXE = Path("/usr/lib/ipxe/ipxe.iso")
NOTHING = "No bootable device."


def boot(daemon: Process, volume: int, seconds: int = 20) -> str:
    """Boot a volume for so long at the most; return what the machine said."""
    booted = daemon.cli("volume", "boot", str(volume), "--seconds", str(seconds))
    assert booted.returncode == 0, booted.stderr
    return booted.stdout


def make(daemon: Process, image: str) -> int:
    """Create a volume from an image, and wait until it is made."""
    volume = daemon.create(image)
    assert set(daemon.until_settled()) == {"available"}
    return volume


def test_our_own_disk_boots_and_remembers(tmp_path: Path) -> None:
    with process(tmp_path) as daemon:
        (daemon.images / "bootdisk.raw").write_bytes(disk())
        first, second = make(daemon, "bootdisk.raw"), make(daemon, "bootdisk.raw")
        for count in ("01", "02", "03"):
            assert f"{HELLO}{count}." in boot(daemon, first)
        # The volume outlives its machines, and the daemon too; another volume knows nothing.
        daemon.stop()
        daemon.start()
        assert f"{HELLO}04." in boot(daemon, first)
        assert f"{HELLO}01." in boot(daemon, second)


def test_a_disk_that_nobody_here_made_boots(tmp_path: Path) -> None:
    with process(tmp_path) as daemon:
        (daemon.images / "ipxe.iso").symlink_to(IPXE)
        said = boot(daemon, make(daemon, "ipxe.iso"), 8)
        assert "Open Source Network Boot Firmware" in said


@pytest.mark.skipif(not os.environ.get("IMAGE"), reason="no other image was asked for")
def test_the_image_that_was_asked_for_boots(tmp_path: Path) -> None:
    with process(tmp_path) as daemon:
        (daemon.images / "image").symlink_to(Path(os.environ["IMAGE"]).resolve(strict=True))
        said = boot(daemon, make(daemon, "image"), 8)
        assert "Booting from Hard Disk" in said
        assert not said.rstrip().endswith(f"Booting from Hard Disk...\n{NOTHING}")


def test_a_volume_without_a_boot_sector_does_not(tmp_path: Path) -> None:
    """The negative control of the tests above."""
    with process(tmp_path) as daemon:
        (daemon.images / "noise.raw").write_bytes(noise(4096))
        assert NOTHING in boot(daemon, make(daemon, "noise.raw"), 8)
