"""nginx from Debian, on loopback and a free port, while a block runs."""

from __future__ import annotations

import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
from tests.servers import free_port

_CONFIG = """
daemon off;
# As which it may read the folder, wherever that lies: nobody's modes are changed for it.
user root;
worker_processes 1;
pid {home}/pid;
error_log {home}/error.log;
events {{}}
http {{
    access_log off;
    sendfile on;
    client_body_temp_path {home};
    proxy_temp_path {home};
    fastcgi_temp_path {home};
    uwsgi_temp_path {home};
    scgi_temp_path {home};
    server {{ listen {address}:{port}; root {root}; {more} }}
}}
"""


@attrs.frozen
class Listener:
    """Where a server listens.

    :ivar address: an IPv4 address.
    :ivar within: the command that runs a program with this address.
    """

    address: str = "127.0.0.1"
    within: tuple[str, ...] = ()


@contextmanager
def nginx(root: Path, at: Listener = Listener(), more: str = "") -> Iterator[str]:
    """Serve a folder; yield the URL, with a slash at its end.

    :param more: more directives of the server.
    """
    port = free_port()
    url = f"http://{at.address}:{port}/"
    with tempfile.TemporaryDirectory() as home:
        config = Path(home) / "nginx.conf"
        config.write_text(
            _CONFIG.format(home=home, root=root, port=port, address=at.address, more=more)
        )
        command = [*at.within, "/usr/sbin/nginx", "-c", str(config), "-e", "stderr"]
        server = subprocess.Popen(command)
        try:
            _wait(url)
            yield url
        finally:
            server.terminate()
            server.wait()


def _wait(url: str) -> None:
    for _ in range(100):
        try:
            urllib.request.urlopen(url).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit("nginx does not answer")
