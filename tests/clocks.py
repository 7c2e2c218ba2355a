"""A wrong system clock, for processes that a test starts."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path
from typing import Final

_SOURCE: Final = Path(__file__).parent / "wrong_clock.c"


class WrongClock:
    """A calendar clock for processes that have :attr:`env` in their environment.

    :param folder: an existing folder for the clock's files.
    """

    def __init__(self, folder: Path) -> None:
        self._offset = folder / "clock-offset"
        self.set(0)
        self._library = folder / "wrong_clock.so"
        subprocess.run(
            ["gcc", "-O2", "-shared", "-fPIC", "-o", self._library, _SOURCE, "-ldl"], check=True
        )

    @property
    def env(self) -> dict[str, str]:
        """The variables to add to the environment of a process."""
        return {"LD_PRELOAD": str(self._library), "CLOCK_OFFSET_FILE": str(self._offset)}

    def set(self, seconds: float) -> None:
        """Set the clock, from now on, to the machine's clock plus some seconds."""
        # Processes have the file mapped, so the file must not be replaced.
        with self._offset.open("r+b" if self._offset.exists() else "wb") as file:
            file.write(struct.pack("d", float(seconds)))
