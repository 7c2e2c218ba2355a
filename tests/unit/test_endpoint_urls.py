"""The URLs of endpoints for clients on the same machine."""

from __future__ import annotations

import pytest

from bootvol.endpoints import url_of


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("tcp:8776:interface=127.0.0.1", "http://127.0.0.1:8776"),
        ("tcp:8776", "http://127.0.0.1:8776"),
        ("tcp:port=8776:interface=0.0.0.0", "http://127.0.0.1:8776"),
        ("tcp:interface=10.0.0.1:port=80", "http://10.0.0.1:80"),
        (r"tcp6:8776:interface=fd00\:\:1", "http://[fd00::1]:8776"),
        (r"tcp6:8776:interface=\:\:", "http://127.0.0.1:8776"),
        ("ssl:443:privateKey=k:certKey=c:interface=10.0.0.1", "https://10.0.0.1:443"),
        ("haproxy:tcp:8776:interface=127.0.0.1", "http://127.0.0.1:8776"),
        ("unix:/run/bootvol", None),
        ("systemd:domain=INET:index=0", None),
    ],
)
def test_urls(endpoint: str, url: str | None) -> None:
    assert url_of(endpoint) == url
