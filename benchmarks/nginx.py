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
    server {{ listen 127.0.0.1:{port}; root {root}; }}
}}
"""


@contextmanager
def nginx(root: Path) -> Iterator[str]:
    """Serve a folder; yield the URL, with a slash at its end."""
    port = free_port()
    with tempfile.TemporaryDirectory() as home:
        config = Path(home) / "nginx.conf"
        config.write_text(_CONFIG.format(home=home, root=root, port=port))
        server = subprocess.Popen(["/usr/sbin/nginx", "-c", config, "-e", "stderr"])
        try:
            _wait(f"http://127.0.0.1:{port}/")
            yield f"http://127.0.0.1:{port}/"
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
