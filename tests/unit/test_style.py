"""Docstrings name their subjects: the limits of ``tests/style.py``."""

from __future__ import annotations

import pytest

from tests import style


@pytest.mark.parametrize("folder", style.FOLDERS)
def test_docstrings_name_their_subjects(folder: str) -> None:
    counts = style.count(folder)
    assert counts.words
    assert counts.pronouns < 36
    assert len(counts.indirect_raises) <= 0.05 * len(counts.raises), counts.indirect_raises
    assert not counts.openings


def test_only_prose_counts() -> None:
    text = """Whether it fits ``that`` place.

    Example::

        what = that or which

    :param what: the size.
    :raises VolumeNotFound: that which `it` names.
    :raises ImageTooLarge: if there is no space.

    Break: `src/x.py`: `what` -> `that`
    """
    docstring = style.Docstring.parse("x.py:1", text)
    words = "whether it fits place example the size that which names if there is no space"
    assert " ".join(docstring.words) == words
    assert docstring.pronouns == 4, "it, that, which, there"
    assert docstring.opens_indirectly
    assert docstring.raises == ("that which X names.", "if there is no space.")
    assert [style.opens_with_pronoun(each) for each in docstring.raises] == [True, False]


@pytest.mark.parametrize(("words", "long"), [(25, 0), (26, 1)])
def test_long_sentences(words: int, long: int) -> None:
    docstring = style.Docstring.parse("x.py:1", f"Short. {'word ' * words}. Short.")
    assert len(docstring.long_sentences) == long
