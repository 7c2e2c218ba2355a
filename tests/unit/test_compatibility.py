"""docs/api-compatibility.md tells the truth about the served calls."""

from __future__ import annotations

from tests.compatibility import DOCUMENT, REASONS, Call, calls, document, served


def test_the_document_is_what_the_declarations_say() -> None:
    """Write the document anew by ``python -m tests.compatibility``."""
    assert DOCUMENT.read_text() == document()


def test_every_missing_call_has_a_reason() -> None:
    answers = served()
    missing = [
        call
        for call in calls()
        if answers.get((call.method, call.path), ("no", 0))[0] != "yes" and call.reason is None
    ]
    assert missing == []


def test_every_served_call_is_listed() -> None:
    listed = {(call.method, call.path) for call in calls()}
    # One path stands for all actions.
    acting = {("POST", f"{kind}/{{}}/action") for kind in ("volumes", "snapshots", "types")}
    assert len(listed) == len(list(calls())) > 200
    assert set(served()) - listed - acting == {("GET", "")}


def test_reasons_are_for_something() -> None:
    paths = [call.path for call in calls()]
    assert all(any(path.startswith(start) for path in paths) for start in REASONS)
    assert Call("", "GET", "groups/x").reason == REASONS["groups"]
