"""Tokens: written values come back, and no other text is accepted."""

from __future__ import annotations

import base64

import attrs
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bootvol.errors import Unauthorized
from bootvol_plugins.embedded.tokens import Claims, Tokens

KEY = b"k" * 32
TOKENS = Tokens(KEY)
CLAIMS = Claims("ann", "11692683195772", 1000, 2000, "credential", "nonce")

names = st.from_regex(r"\A[A-Za-z0-9._@+-]{1,64}\Z")
claims = st.builds(
    Claims,
    user=names,
    project=st.none() | names,
    issued=st.integers(0, 2**40),
    expires=st.integers(1, 2**40),
    credential=names,
    nonce=names,
    ancestors=st.lists(st.from_regex(r"\A[A-Za-z0-9_-]{16}\Z"), max_size=16).map(tuple),
)


@given(claims)
def test_what_was_written_comes_back(said: Claims) -> None:
    token = TOKENS.write(said)
    assert TOKENS.read(token, said.expires - 1) == said
    assert token.startswith("HPAuth_")
    # The form fits into a header and a shell's word.
    assert set(token) <= set("._-") | {chr(c) for c in range(128) if chr(c).isalnum()}
    with pytest.raises(Unauthorized):
        TOKENS.read(token, said.expires)


@given(claims, st.binary(min_size=32, max_size=64))
def test_another_key_does_not_do(said: Claims, key: bytes) -> None:
    """A token of another key is refused.

    Break: `plugins/bootvol_plugins/embedded/tokens.py`: `hmac.digest(self._key, purpose` ->
    `hmac.digest(b"", purpose`.
    """
    assume(key != KEY)
    with pytest.raises(Unauthorized):
        Tokens(key).read(TOKENS.write(said), 0)


@given(st.data())
def test_no_changed_token_is_valid(data: st.DataObject) -> None:
    """A token with any change is refused.

    Break: `plugins/bootvol_plugins/embedded/tokens.py`: `if not hmac.compare_digest(signature,
    self._signature(signed)):` -> `if not signature:`.
    """
    token = TOKENS.write(CLAIMS)
    start = data.draw(st.integers(0, len(token)))
    end = data.draw(st.integers(start, len(token)))
    changed = token[:start] + data.draw(st.text(max_size=20)) + token[end:]
    assume(changed != token)
    with pytest.raises(Unauthorized):
        TOKENS.read(changed, 0)


def test_every_bit_counts() -> None:
    token = TOKENS.write(CLAIMS)
    for place in range(len(token)):
        for bit in range(8):
            changed = chr(ord(token[place]) ^ 1 << bit)
            with pytest.raises(Unauthorized):
                TOKENS.read(token[:place] + changed + token[place + 1 :], 0)
    for length in range(len(token)):
        with pytest.raises(Unauthorized):
            TOKENS.read(token[:length], 0)


@given(st.text() | st.text().map(lambda text: f"HPAuth_{text}") | st.just("." * 10_000_000))
def test_no_text_is_a_token(text: str) -> None:
    with pytest.raises(Unauthorized):
        TOKENS.read(text, 0)


def test_what_is_said_cannot_be_taken_over() -> None:
    """A signature fits only its own token, and a fingerprint is no signature."""
    token = TOKENS.write(CLAIMS)
    signature = token.rpartition(".")[2]
    other = attrs.evolve(CLAIMS, user="bob")
    forged = TOKENS.write(other).rpartition(".")[0] + "." + signature
    with pytest.raises(Unauthorized):
        TOKENS.read(forged, 0)
    with pytest.raises(Unauthorized):
        TOKENS.read(f"x.{TOKENS.fingerprint('x')}", 0)


def test_the_form_stays() -> None:
    """Keys and tokens stay valid across versions."""
    token = TOKENS.write(CLAIMS)
    assert token == (
        "HPAuth_WyJhbm4iLCIxMTY5MjY4MzE5NTc3MiIsMTAwMCwyMDAwLCJjcmVkZW50aWFsIiwibm9uY2UiXQ"
        ".ZxOvEiXOsiy03p3N6c0E1e3V_qShWVoSZnStw3uwLaI"
    )
    content = token.removeprefix("HPAuth_").partition(".")[0]
    assert base64.urlsafe_b64decode(content + "==").startswith(b'["ann","11692683195772",1000,')
