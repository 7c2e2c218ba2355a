"""Which URLs the http source may ask for."""

from __future__ import annotations

import pytest

from bootvol_plugins.http.urls import Refused, lies_under, parse, to_ask

ALLOWED = [parse("http://images.example/public/"), parse("https://host:8443")]


@pytest.mark.parametrize(
    "url",
    [
        "http://images.example/public/a",
        "http://IMAGES.example:80/public/a/b?c=d",
        "http://images.example/public",
        "https://host:8443/anything",
    ],
)
def test_allowed(url: str) -> None:
    assert lies_under(parse(url), ALLOWED)


@pytest.mark.parametrize(
    "url",
    [
        "https://images.example/public/a",
        "http://images.example:8080/public/a",
        "http://images.example/publicity",
        "http://images.example/",
        "http://images.example.evil/public/a",
        "http://evil/images.example/public/a",
        "https://host/anything",
        "http://127.0.0.1/public/a",
    ],
)
def test_elsewhere(url: str) -> None:
    assert not lies_under(parse(url), ALLOWED)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "images.example/public/a",
        "file:///etc/passwd",
        "http://",
        "http:///public/a",
        "http://user@images.example/public/a",
        "http://images.example@evil/public/a",
        "http://images.example/public/../secret",
        "http://images.example/public/%2e%2e/secret",
        "http://images.example/public/..%2fsecret",
        "http://images.example/public/a%00",
        "http://images.example/public\\..\\secret",
        "http://images.example/public/a b",
        "http://images.example//public/a",
        "http://images.example/public//a",
        "http://images.example/public/a\r\nX: y",
        "http://images.example/public/a#b",
        "http://images.example:port/public/a",
        "http://[::1/public/a",
    ],
)
def test_refused(url: str) -> None:
    with pytest.raises(Refused):
        parse(url)


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("http://images.example/a%2520b?c=%26&d", "http://images.example/a%2520b?c=%26&d"),
        ("https://images.example:8443/", "https://images.example:8443/"),
        ("http://b\u00fccher.example/\u00fc?\u00fc", "http://xn--bcher-kva.example/%C3%BC?%C3%BC"),
        ("http://[fd00::1]:8080/\u00fc", "http://[fd00::1]:8080/%C3%BC"),
    ],
)
def test_what_is_sent(url: str, asked: str) -> None:
    assert to_ask(parse(url)).to_uri().to_text() == asked
