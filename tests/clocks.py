"""A machine's clock that is wrong: for processes that a test starts, and for them alone."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path
from typing import Final

_SOURCE: Final = Path(__file__).parent / "wrong_clock.c"


class WrongClock:
    """The clock of the calendar, as processes see it that have :attr:`env` in their environment.

    :param folder: an existing one, for what that takes.
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
        """What is to be added to the environment of a process."""
        return {"LD_PRELOAD": str(self._library), "CLOCK_OFFSET_FILE": str(self._offset)}

    def set(self, seconds: float) -> None:
        """Set the clock, from now on, to what the machine's says and so many seconds."""
        # Processes have the file mapped: it must stay the same one.
        with self._offset.open("r+b" if self._offset.exists() else "wb") as file:
            file.write(struct.pack("d", float(seconds)))
