"""The demo of ``make demo``: from an image to a machine booted from a volume.

The demo logs in with a password, as people do.  All its files lie below var/demo, and stay there.
The environment variable IMAGE, a path or a URL, replaces the image that the demo makes.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bootvol.cli.boot import MISSING, QEMU
from bootvol.passwords import hash_password
from demo.bootdisk import disk

_ROOT: Final = Path(__file__).resolve().parent.parent
_HOME: Final = _ROOT / "var" / "demo"
_BIN: Final = Path(sys.executable).parent
_GIB: Final = 1024**3
#: Seconds to watch a guest that does not turn itself off.
_WATCH: Final = 20

_CONFIG: Final = """\
[api]
listen = ["tcp:{port}:interface=127.0.0.1"]

[state]
url = "sqlite:///bootvol.db"
directory = "."

[quota]
volumes = -1
gigabytes = -1

[identity]
plugin = "embedded"
directory = "identity"

[[identity.projects]]
name = "demo"

[[identity.users]]
name = "demo"
password_hash = "env:DEMO_PASSWORD_HASH"
roles = {{ demo = ["admin"] }}

[[backends]]
name = "local"
plugin = "file"
directory = "volumes"

[[sources]]
name = "images"
plugin = "directory"
directory = "images"
"""

_INDEX: Final = """\
[[images]]
id = "1"
file = {file}
name = {name}
"""

_WEB: Final = """
[[sources]]
name = "web"
plugin = "http"
allow = [{url}]
# Whoever runs the demo names this one URL, and may mean a server of their own.
networks = ["0.0.0.0/0", "::/0"]
"""


def main() -> None:
    """Start a daemon, make a bootable volume, boot from the volume, and keep the volume."""
    image, size = _image()
    port = _free_port()
    config = _CONFIG.format(port=port)
    if "://" in image:
        config += _WEB.format(url=json.dumps(image))
    (_HOME / "twistd.conf").write_text(config)
    password = secrets.token_urlsafe(12)
    os.environ["DEMO_PASSWORD_HASH"] = hash_password(password)
    login = {
        "OS_AUTH_URL": f"http://127.0.0.1:{port}/identity",
        "OS_USERNAME": "demo",
        "OS_PASSWORD": password,
        "OS_PROJECT_NAME": "demo",
    }
    with _daemon(port):
        _say(f"The daemon listens on port {port}; its files are in {_HOME.relative_to(_ROOT)}.")
        _say("Clients log in with a user's password, here one that was made up just now:")
        for name, value in login.items():
            print(f"$ export {name}={value}")
        for name in ("BOOTVOL_ENDPOINT", "BOOTVOL_TOKEN"):
            os.environ.pop(name, None)
        os.environ |= login
        _say("Its images:")
        _bootvol("image", "list")
        _say(f"A volume of {size} GiB from {image}:")
        create = ("volume", "create", "--image", image, "--size", str(size), "--name", "demo")
        made = json.loads(_bootvol(*create, "--wait", capture=True))
        print(json.dumps(made, indent=2), flush=True)
        volume = str(made["id"])
        if shutil.which(QEMU) is None:
            _say(f"It is not booted: {MISSING}.")
        else:
            _say("A machine that has the volume as /dev/vda says on its serial console:")
            _bootvol("volume", "boot", volume, "--seconds", str(_WATCH))
        _say("The volume, which outlives the machine:")
        _bootvol("volume", "show", volume)
    _say(f"The volume is kept in {_HOME.relative_to(_ROOT) / 'volumes'}.")


def _image() -> tuple[str, int]:
    """Put the image into the daemon's folder; return the name or URL, and the volume's GiB."""
    images = _HOME / "images"
    images.mkdir(parents=True, exist_ok=True)
    wanted = os.environ.get("IMAGE", "")
    if "://" in wanted:
        with urllib.request.urlopen(urllib.request.Request(wanted, method="HEAD")) as response:
            return wanted, _gib(int(response.headers.get("Content-Length", 0)))
    target = images / (Path(wanted).name if wanted else "bootdisk.raw")
    if wanted:
        target.unlink(missing_ok=True)
        target.symlink_to(Path(wanted).resolve(strict=True))
    elif not target.exists():
        target.write_bytes(disk())
    index = _INDEX.format(file=json.dumps(target.name), name=json.dumps(target.stem))
    (images / "index.toml").write_text(index)
    return target.stem, _gib(target.stat().st_size)


def _gib(size: int) -> int:
    return max(1, math.ceil(size / _GIB))


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@contextmanager
def _daemon(port: int) -> Iterator[None]:
    """Start the daemon, run the block when the daemon answers, and stop the daemon."""
    command = [str(_BIN / "twistd"), "--nodaemon", "--pidfile=", "bootvol", "--config"]
    log = _HOME / "twistd.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*command, "twistd.conf"], cwd=_HOME, stdout=output, stderr=output
        )
    try:
        _wait_for(process, f"http://127.0.0.1:{port}/", log)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _wait_for(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    for _ in range(300):
        if process.poll() is not None:
            raise SystemExit(f"the daemon ended at once; see {log}")
        try:
            urllib.request.urlopen(url).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise SystemExit(f"the daemon does not answer; see {log}")


def _bootvol(*arguments: str, capture: bool = False) -> str:
    print(f"$ bootvol {' '.join(arguments)}", flush=True)
    command = [str(_BIN / "bootvol"), *arguments]
    done = subprocess.run(
        command, check=False, text=True, stdout=subprocess.PIPE if capture else None
    )
    if done.returncode:
        raise SystemExit(done.returncode)
    return done.stdout or ""


def _say(text: str) -> None:
    print(f"\n=== {text}", flush=True)


if __name__ == "__main__":
    main()
