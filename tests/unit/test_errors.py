"""The tree of errors: each is complete, and each has a code of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from bootvol.api.nova.faults import fault
from bootvol.api.statuses import STATUSES, status_of
from bootvol.errors import (
    BackendFailed,
    BootvolError,
    ConfigurationError,
    NoSpace,
    UnexpectedFailure,
    VolumeNotFound,
    reason,
)
from bootvol.errors.base import LONGEST


def _tree(root: type[BootvolError]) -> Iterator[type[BootvolError]]:
    yield root
    for child in root.__subclasses__():
        yield from _tree(child)


def test_codes_are_unique() -> None:
    codes = [error.code for error in _tree(BootvolError)]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize("kind", list(_tree(BootvolError)))
def test_each_is_complete(kind: type[BootvolError]) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", kind.code)
    assert kind.remedy.endswith(".")
    assert kind.__doc__


def test_statuses_follow_the_tree() -> None:
    assert set(STATUSES) <= set(_tree(BootvolError))
    assert all(400 <= status < 600 for status in STATUSES.values())
    assert status_of(VolumeNotFound(3)) == 404
    assert status_of(BootvolError()) == 500


@pytest.mark.parametrize(
    ("status", "key"),
    [
        (400, "badRequest"),
        (401, "unauthorized"),
        (403, "resizeNotAllowed"),
        (404, "itemNotFound"),
        (405, "badMethod"),
        (409, "inProgress"),
        (413, "overLimit"),
        (415, "badMediaType"),
        (422, "cloudServersFault"),
        (500, "cloudServersFault"),
        (501, "notImplemented"),
        (503, "serviceUnavailable"),
    ],
)
def test_nova_names_faults_by_their_status(status: int, key: str) -> None:
    """Specification, section 2.5."""
    expected = {"message": "what happened", "code": status}
    if status == 413:
        expected["retryAfter"] = 0
    assert fault(BootvolError("what happened"), status) == {key: expected}


def test_a_reason_tells_tenants_of_known_errors_only() -> None:
    """A defect's text stays hidden from tenants.

    Break: `src/bootvol/errors/work.py`: `else UnexpectedFailure()` -> `else
    UnexpectedFailure(str(error))`.
    """
    assert reason(NoSpace("full")).message == "full"
    assert reason(VolumeNotFound(3)).code == "volume-not-found"
    assert reason(RuntimeError("secret")) == UnexpectedFailure().report()


@pytest.mark.parametrize(
    ("text", "message"),
    [("It failed: refused..", "It failed: refused."), ("a", "a"), ("a.", "a."), ("a...", "a...")],
)
def test_a_message_ends_with_one_full_stop(text: str, message: str) -> None:
    assert BackendFailed(text).message == message


@pytest.mark.parametrize("text", ["x" * 10**6, "\x1b[2J" * 10**5, "a\nb", "\u202e", "\udc80", "ä"])
def test_a_message_is_short_and_harmless(text: str) -> None:
    """Whatever a server or a program says, the message in the log and the database is one line.

    Break: `src/bootvol/errors/base.py`: `if len(text) > LONGEST:` -> `if False:`.
    Break: `src/bootvol/errors/base.py`: `if text.isprintable():` -> `if True:`.
    """
    message = BackendFailed(text).report().message
    assert message.isprintable()
    assert 0 < len(message) <= LONGEST
    assert "ä" not in text or message == "ä"
    assert ConfigurationError(text).message == text
