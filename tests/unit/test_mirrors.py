"""The URLs of images at mirrors."""

from __future__ import annotations

import pytest
from pydantic import ValidationError
from twisted.internet.task import Clock

from bootvol_plugins.http.mirrors import Mirrors
from bootvol_plugins.http.options import HttpOptions
from bootvol_plugins.http.urls import parse

NAMED = "https://images.example.org/cloud/"


def mirrors(clock: Clock | None = None) -> Mirrors:
    """Return two mirrors of a folder."""
    others = ["http://one.example.org/pub/linux/cloud", "https://two.example.org:8443/"]
    return Mirrors({NAMED: others}, clock or Clock())


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            f"{NAMED}a/disk%20x.img",
            [
                "http://one.example.org/pub/linux/cloud/a/disk%20x.img",
                "https://two.example.org:8443/a/disk%20x.img",
            ],
        ),
        ("https://images.example.org/%63loud/x", None),
        ("https://images.example.org/clouds/x", []),
        (f"{NAMED}x?signature=secret", []),
        ("https://two.example.org:8443/x", []),
    ],
)
def test_urls(url: str, expected: list[str] | None) -> None:
    """Break: `plugins/bootvol_plugins/http/mirrors.py`: `if not url.query and ` -> `if `"""
    if expected is None:
        expected = ["http://one.example.org/pub/linux/cloud/x", "https://two.example.org:8443/x"]
    found = [each.to_text() for each in mirrors().of(parse(url))]
    assert found == [parse(url).to_text(), *expected]


def test_a_failed_server_comes_last_for_a_while() -> None:
    clock = Clock()
    clock.advance(1000)
    found = mirrors(clock)
    url = parse(f"{NAMED}x")
    named, one, two = found.of(url)
    found.failed(named)
    assert found.of(url) == [one, two, named]
    clock.advance(1)
    found.failed(one)
    assert found.of(url) == [two, named, one]
    clock.advance(299.5)
    assert found.of(url) == [named, two, one]
    clock.advance(1)
    assert found.of(url) == [named, one, two]


@pytest.mark.parametrize(
    ("group", "fault"),
    [
        ({"https://a.example/": ["https://b.example/"]}, "does not lie below"),
        ({"https://b.example/": ["https://a.example/x"]}, "does not lie below"),
        ({"https://a.example/": ["ftp://a.example/"]}, "is not an http"),
        ({"https://a.example/": ["https://a.example/x?y=z"]}, "has a query"),
    ],
)
def test_refused(group: dict[str, list[str]], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        HttpOptions(allow=["https://a.example/"], mirrors=group)
