"""The number of values in a JSON body, counted before any code reads the body."""

from __future__ import annotations

from io import BytesIO
from typing import Any, cast

import attrs
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.web.iweb import IRequest

from bootvol.api.channels import LARGEST_BODY
from bootvol.api.http import MOST_VALUES, read_json
from bootvol.errors import InvalidRequest, MalformedBody
from bootvol.service.quotas import MOST_METADATA
from tests.fuzzing import fuzz

TOO_MANY = "too many values"
#: Texts full of characters that have a meaning outside of texts.
TEXTS = st.text(st.sampled_from('"\\[]{},:aé'), max_size=20)
JSON = st.recursive(
    TEXTS | st.integers(-9, 9) | st.none(),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(TEXTS, inside, max_size=4),
    max_leaves=20,
)


@attrs.frozen
class Sent:
    """A request with a body."""

    content: BytesIO

    def getHeader(self, _name: bytes) -> None:  # noqa: N802 (Twisted's name)
        """Return no header."""


def read(body: bytes) -> Any:
    """Read a body."""
    return read_json(cast("IRequest", Sent(BytesIO(body))))


def test_the_largest_useful_body_is_read() -> None:
    hostile = '[{,"\\' * 51
    disk = dict.fromkeys(map(str, range(13)), hostile[:50])
    server = {
        "metadata": {f"{each}{hostile}"[:255]: hostile[:20] for each in range(MOST_METADATA)},
        "block_device_mapping_v2": [disk] * 26,
        "user_data": "A" * 2000,
    }
    body = orjson.dumps({"server": server})
    assert len(body) < LARGEST_BODY
    assert read(body) == {"server": server}


@fuzz(300)
@given(value=JSON)
def test_texts_do_not_count(value: Any) -> None:
    """Brackets and commas count exactly if they are outside of texts."""
    sent = orjson.dumps(value)
    few = orjson.dumps([value] + [0] * (MOST_VALUES // 2))
    assert read(sent) == value
    assert read(few)[0] == value
    with pytest.raises(InvalidRequest, match=TOO_MANY):
        read(orjson.dumps([value] + [0] * MOST_VALUES))


@pytest.mark.parametrize(
    "body",
    [
        b"[" + b"1," * MOST_VALUES + b"1]",
        b"[" + b"[]," * MOST_VALUES + b"1]",
        b"[" * (MOST_VALUES + 1),
        b'{"a":1}' * (MOST_VALUES + 1),
        b'"' * (4 * MOST_VALUES + 1),
        b'["\\\\",' + b"1," * MOST_VALUES + b'"\\""]',
    ],
)
def test_many_values_are_refused(body: bytes) -> None:
    """A body with many values is refused, valid or not.

    Break: `src/bootvol/api/http.py`: `_check_number(sent)` -> `pass`
    """
    with pytest.raises(InvalidRequest, match=TOO_MANY):
        read(body)


@pytest.mark.parametrize("body", [b"", b'"', b'"\\', b"[", b"\\\\" * 900, b'""""'])
def test_what_is_no_json(body: bytes) -> None:
    with pytest.raises(MalformedBody):
        read(body)
