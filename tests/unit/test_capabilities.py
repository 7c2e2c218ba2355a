"""docs/backends.md states the capabilities as the backends declare them."""

from bootvol import plugins
from bootvol.interfaces import BackendPlugin
from tests.capabilities import DOCUMENT, declared, rewritten, table


def test_the_table_is_what_the_code_says() -> None:
    document = DOCUMENT.read_text()
    assert rewritten(document) == document, "run: python -m tests.capabilities"


def test_an_older_table_is_rewritten() -> None:
    document = DOCUMENT.read_text()
    older = document.replace(table(), "| an older one |\n")
    assert older != document
    assert rewritten(older) == document


def test_no_backend_is_left_out() -> None:
    assert {name.split("`")[1] for name in declared()} == set(plugins.names(BackendPlugin))
