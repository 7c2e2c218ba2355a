"""Lets atheris change images, and look for new branches of the decoders.

``make fuzz`` runs all targets for a while.  One target runs on with::

    .venv-fuzzing/bin/python -m tests.fuzzing qcow2 -max_total_time=3600

The options are those of libFuzzer.  An image that shows a fault lies in ``var/fuzz`` afterwards, as
``qcow2-crash-…``; a file as the last argument runs again.  The images that reach new branches stay
in ``var/fuzz/qcow2`` for the next run.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["bootvol.imaging"]):
    from tests.fuzzing.targets import TARGETS

_FOLDER = Path("var/fuzz")


def _run_all(options: list[str]) -> None:
    command = [sys.executable, "-m", "tests.fuzzing"]
    for name in TARGETS:
        # A fault of one target must not hide those of others.
        subprocess.run([*command, name, *options], check=False)
    faults = [each for each in _FOLDER.iterdir() if each.is_file()]
    if faults:
        sys.exit(f"Images that show faults: {', '.join(map(str, faults))}")


def _run(name: str, options: list[str]) -> None:
    target, images = TARGETS[name], _FOLDER / name
    images.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(target.seeds(_FOLDER)):
        (images / f"seed-{number}").write_bytes(content)
    own = [f"-artifact_prefix={_FOLDER}/{name}-", "-timeout=60", "-rss_limit_mb=2048"]
    again = bool(options) and Path(options[-1]).is_file()
    atheris.Setup([sys.argv[0], *own, *options, *([] if again else [str(images)])], target.feed)
    atheris.Fuzz()


if __name__ == "__main__":
    _FOLDER.mkdir(parents=True, exist_ok=True)
    if sys.argv[1:] and sys.argv[1] in TARGETS:
        _run(sys.argv[1], sys.argv[2:])
    else:
        _run_all(sys.argv[1:])
