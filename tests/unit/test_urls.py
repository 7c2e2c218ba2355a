"""URLs allowed for the http source."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootvol_plugins.http.urls import Refused, joined, lies_under, parse, to_ask
from tests.fuzzing import fuzz

ALLOWED = [parse("http://images.example/public/"), parse("https://host:8443")]


@pytest.mark.parametrize(
    "url",
    [
        "http://images.example/public/a",
        "http://IMAGES.example:80/public/a/b?c=d",
        "http://images.example/public",
        "HTTP://images.example.:80/secret/../public/a",
        "http://images.example:/public//a#b",
        "http://images.example/%70ublic/100%.img",
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
        "http://images.example/public/../secret",
        "http://images.example//public/a",
        "http://images.example/public%2Fa",
        "http://images.example/",
        "http://images.example.evil/public/a",
        "http://evil/images.example/public/a",
        "https://host/anything",
        "http://127.0.0.1/public/a",
    ],
)
def test_elsewhere(url: str) -> None:
    """A URL outside the allowed ones never counts as below an allowed one.

    Break: `plugins/bootvol_plugins/http/urls.py`: `_origin(url) == _origin(each) and _below(url,
    each)` -> `_below(url, each)`.
    Break: `plugins/bootvol_plugins/http/urls.py`: `_origin(url) == _origin(each) and _below(url,
    each)` -> `_origin(url) == _origin(each)`.
    """
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
        "http://images.example/public/%2e%2e/secret",
        "http://images.example/public/..%2fsecret",
        "http://images.example/public/..;/secret",
        "http://images.example/public/..;x=y/secret",
        "http://images.example/public/..%3bx/secret",
        "http://images.example/public/%2e%2e;/secret",
        "http://images.example/public/.;/secret",
        "http://images.example/public/%252e%252e/secret",
        "http://images.example/public/..%252fsecret",
        "http://images.example/public/..%253b/secret",
        "http://images.example/public/.. /secret",
        "http://images.example/public/...%20./secret",
        "http://images.example/public/%5c../secret",
        "http://images.example/public/%255c../secret",
        "http://images.example/public/a%00",
        "http://images.example/public\\..\\secret",
        "http://images.example/public/a\r\nX: y",
        "http://images.example:99999/public/a",
        "http://images%2eexample/public/a",
        "http://images.example:port/public/a",
        "http://[::1/public/a",
        f"http://images.example/public/{'a' * 8000}",
        f"http://{'a.' * 127}example/public/a",
        "http://" + "a\u0301" * 127 + ".example/public/a",
    ],
)
def test_refused(url: str) -> None:
    """A URL with credentials, or in a deceptive form, is refused.

    Break: `plugins/bootvol_plugins/http/urls.py`: `for plain in (once,
    unquote_to_bytes(once))` -> `for plain in (once,)`
    Break: `plugins/bootvol_plugins/http/urls.py`: `(;|$)` -> `$`
    Break: `plugins/bootvol_plugins/http/urls.py`: `host = _HOST.fullmatch(authority)` -> `host =
    _HOST.fullmatch(authority.rpartition("@")[2])`.
    """
    with pytest.raises(Refused):
        parse(url)


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("http://images.example/a%2520b?c=%26&d", "http://images.example/a%2520b?c=%26&d"),
        ("https://images.example:8443/", "https://images.example:8443/"),
        ("http://b\u00fccher.example/\u00fc?\u00fc", "http://xn--bcher-kva.example/%C3%BC?%C3%BC"),
        ("http://[fd00::1]:8080/\u00fc", "http://[fd00::1]:8080/%C3%BC"),
        # As written: composed or not, encoded or not, and with bytes of no encoding.
        ("http://host/\u00e9/e\u0301", "http://host/%C3%A9/e%CC%81"),
        ("http://host/%7e%41%c3%bc/100%.img", "http://host/%7e%41%c3%bc/100%.img"),
        ("http://host/%FF/a%2Fb", "http://host/%FF/a%2Fb"),
        # A signature may cover the query.
        ("http://host/a?x=a/b:c+%2f&y==&z=%20", "http://host/a?x=a/b:c+%2f&y==&z=%20"),
        (" http://host/a b.img ", "http://host/a%20b.img"),
        ("http://host/a/./b/../c", "http://host/a/c"),
        ("http://host/.a/b../c..d/e;..", "http://host/.a/b../c..d/e;.."),
    ],
)
def test_what_is_sent(url: str, asked: str) -> None:
    assert to_ask(parse(url)).to_uri().to_text() == asked


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("b c", "http://host/x/b%20c"),
        ("/\u00e9", "http://host/%C3%A9"),
        ("//other/b", "http://other/b"),
        ("?k=v", "http://host/x/a?k=v"),
        ("../../b#c", "http://host/b"),
        ("HTTPS://Other:443/b", "https://other/b"),
        ("", "http://host/x/a?q"),
    ],
)
def test_where_a_redirect_leads(reference: str, expected: str) -> None:
    assert joined(parse("http://host/x/a?q"), reference).to_text() == expected


@pytest.mark.parametrize(
    "reference", ["mailto:nobody", "//user@other/b", "%2e%2e/b", "..;/b", "a\\b", "?" + "&" * 8000]
)
def test_redirects_to_what_is_refused(reference: str) -> None:
    with pytest.raises(Refused):
        joined(parse("http://host/x/a"), reference)


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("http://\u246027.0.0.\u00b2/", "127.0.0.2"),
        ("http://127\u30020\u30020\u30021/", "127.0.0.1"),
        ("http://\uff45xample.org/", "example.org"),
        ("http://\u00fc.example/", "xn--tda.example"),
    ],
)
def test_a_host_has_one_form(text: str, host: str) -> None:
    """A host is compared and judged in the form of the later lookup (RFC 5891, section 5).

    Break: `plugins/bootvol_plugins/http/urls.py`: `if not url.host.isascii():` ->
    `if False:`
    """
    url = parse(text)
    assert url.encoded_url.host == to_ask(url).host == host
    assert lies_under(url, [parse(f"http://{host}/")])


@fuzz(100)
@given(st.text())
def test_whatever_is_taken_stays_as_it_is(path: str) -> None:
    try:
        url = parse(f"http://host/{path}")
    except Refused:
        return
    assert url.to_text().isascii()
    assert parse(url.to_text()).to_text() == url.to_text()
    assert to_ask(url).to_text() == url.to_text()
