"""Makes a small bootable disk: a boot sector of our own, and some data behind it.

The boot sector is 16-bit code.  A PC's BIOS loads the sector to address 0x7C00 and runs the code.
The code

1. prints a greeting on the first serial port;
2. reads the disk's second sector, increments the two-digit number in the sector, and writes the
   sector back: the number survives, since the volume outlives the machine;
3. prints the number of boots, and turns the machine off.

Run it as ``python -m demo.bootdisk FILE``.
"""

from __future__ import annotations

import random
import struct
import sys
from pathlib import Path
from typing import Final

HELLO: Final = "bootvol: this machine runs from its volume; boot number "

_ORIGIN: Final = 0x7C00
_COUNTER: Final = 0x8000
_SECTOR: Final = 512
#: Length of the data in bytes. The data are the same each time, and are not zeros: an import has to
#: copy them.
_DATA: Final = 32 * 1024 * 1024


class _Code:
    """Machine code with labels. A jump or an address may name a label before the label is set."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._labels: dict[str, int] = {}
        self._near: list[tuple[int, str]] = []
        self._absolute: list[tuple[int, str]] = []

    def put(self, code: str, value: bytes = b"") -> None:
        """Append an instruction: the opcode in hex, then the immediate bytes."""
        self._bytes += bytes.fromhex(code) + value

    def label(self, name: str) -> None:
        """Name the current position."""
        self._labels[name] = len(self._bytes)

    def jump(self, opcode: str, name: str) -> None:
        """Append a jump or call to a label, with a distance of 8 or 16 bits."""
        self.put(opcode)
        self._near.append((len(self._bytes), name))
        self._bytes += bytes(2 if opcode == "e8" else 1)

    def address(self, opcode: str, name: str) -> None:
        """Append an instruction with a label's address as its 16-bit operand."""
        self.put(opcode)
        self._absolute.append((len(self._bytes), name))
        self._bytes += bytes(2)

    def assemble(self) -> bytes:
        """Return the finished code."""
        for at, name in self._near:
            width = 2 if self._bytes[at - 1] == 0xE8 else 1
            distance = self._labels[name] - (at + width)
            self._bytes[at : at + width] = distance.to_bytes(width, "little", signed=True)
        for at, name in self._absolute:
            struct.pack_into("<H", self._bytes, at, _ORIGIN + self._labels[name])
        return bytes(self._bytes)


def boot_sector() -> bytes:
    """Return the 512 bytes of the boot sector."""
    code = _Code()
    # Set segments and stack. The BIOS passes the number of the disk in DL.
    code.put("fa")  # cli
    code.put("31c0")  # xor ax, ax
    code.put("8ed8")  # mov ds, ax
    code.put("8ec0")  # mov es, ax
    code.put("8ed0")  # mov ss, ax
    code.put("bc", struct.pack("<H", _ORIGIN))  # mov sp, 0x7c00
    code.put("fb")  # sti
    code.address("8816", "drive")  # mov [drive], dl
    # The BIOS may still be printing: wait for two ticks of the clock.
    code.put("f4")  # hlt
    code.put("f4")  # hlt

    code.address("be", "hello")  # mov si, hello
    code.jump("e8", "print")  # call print

    code.put("b442")  # mov ah, 0x42: extended read
    code.jump("e8", "disk")  # call disk
    code.put("bb", struct.pack("<H", _COUNTER))  # mov bx, counter
    code.put("fe4701")  # inc byte [bx+1]
    code.put("807f013a")  # cmp byte [bx+1], '9'+1
    code.jump("75", "counted")  # jne counted
    code.put("c6470130")  # mov byte [bx+1], '0'
    code.put("fe07")  # inc byte [bx]
    code.label("counted")
    code.put("b80043")  # mov ax, 0x4300: extended write
    code.jump("e8", "disk")  # call disk

    code.put("be", struct.pack("<H", _COUNTER))  # mov si, counter
    code.jump("e8", "print")  # call print
    code.address("be", "bye")  # mov si, bye
    code.jump("e8", "print")  # call print

    code.label("off")
    code.put("ba0406")  # mov dx, 0x604: the power management port of QEMU's PC
    code.put("b80020")  # mov ax, 0x2000: soft off
    code.put("ef")  # out dx, ax
    code.label("halt")
    code.put("f4")  # hlt
    code.jump("eb", "halt")  # jmp halt

    code.label("disk")  # AX: what to do with the sector that the packet names
    code.address("be", "packet")  # mov si, packet
    code.address("8a16", "drive")  # mov dl, [drive]
    code.put("cd13")  # int 0x13
    code.jump("72", "failed")  # jc failed
    code.put("c3")  # ret
    code.label("failed")
    code.address("be", "error")  # mov si, error
    code.jump("e8", "print")  # call print
    code.jump("eb", "off")  # jmp off

    code.label("print")  # SI: text that ends with a zero byte
    code.put("ac")  # lodsb
    code.put("84c0")  # test al, al
    code.jump("74", "printed")  # jz printed
    code.put("88c4")  # mov ah, al
    code.put("bafd03")  # mov dx, 0x3fd: line status of the first serial port
    code.label("busy")
    code.put("ec")  # in al, dx
    code.put("a820")  # test al, 0x20: room for a byte?
    code.jump("74", "busy")  # jz busy
    code.put("baf803")  # mov dx, 0x3f8: its data
    code.put("88e0")  # mov al, ah
    code.put("ee")  # out dx, al
    code.jump("eb", "print")  # jmp print
    code.label("printed")
    code.put("c3")  # ret

    code.label("drive")
    code.put("00")
    code.label("packet")  # size, 0, one sector, to 0:counter, sector number 1
    code.put("", struct.pack("<BBHHHQ", 16, 0, 1, _COUNTER, 0, 1))
    for name, text in (
        ("hello", f"\r\n{HELLO}"),
        ("bye", ".\r\n"),
        ("error", "\r\nthe disk cannot be used\r\n"),
    ):
        code.label(name)
        code.put("", text.encode("ascii") + b"\0")

    sector = code.assemble()
    assert len(sector) <= _SECTOR - 2
    return sector.ljust(_SECTOR - 2, b"\0") + b"\x55\xaa"


def disk() -> bytes:
    """Return the whole disk: the boot sector, the counter (00), and the data."""
    counter = b"00".ljust(_SECTOR, b"\0")
    return boot_sector() + counter + random.Random(0).randbytes(_DATA)


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(disk())
