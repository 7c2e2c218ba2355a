"""Docstrings and documents name their subjects: the limits of ``tests/style.py``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import style


@pytest.mark.parametrize("folder", style.FOLDERS)
def test_docstrings_name_their_subjects(folder: str) -> None:
    counts = style.count(folder)
    assert counts.words
    assert counts.pronouns < 36
    assert len(counts.indirect_raises) <= 0.05 * len(counts.raises), counts.indirect_raises
    assert not counts.openings


@pytest.mark.parametrize("document", style.DOCUMENTS)
def test_documents_name_their_subjects(document: str) -> None:
    counts = style.count(document)
    assert counts.words
    assert counts.pronouns < 30


def test_only_prose_counts() -> None:
    text = """Whether it fits ``that`` place.

    Example::

        what = that or which

    :param what: the size.
    :raises VolumeNotFound: that which `it` names.
    :raises ImageTooLarge: if there is no space.

    Break: `src/x.py`: `what` -> `that`
    """
    passage = style.Passage.parse("x.py:1", text)
    words = "whether it fits place example the size that which names if there is no space"
    assert " ".join(passage.words) == words
    assert passage.pronouns == 4, "it, that, which, there"
    assert passage.opens_indirectly
    assert passage.raises == ("that which X names.", "if there is no space.")
    assert [style.opens_with_pronoun(each) for each in passage.raises] == [True, False]


def test_code_in_documents_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = tmp_path / "x.md"
    document.write_text("""# Head of `it`

    it

A [link](that.md) to
what <!-- it --> fits.

| size | which |
| --- | --- |
| `it` | 5 GiB |

- item

```
it
```
""")
    monkeypatch.setattr(style, "ROOT", tmp_path)
    found = [(each.place, each.prose) for each in style.passages(document)]
    assert found == [
        ("x.md:1", "Head of X"),
        ("x.md:5", "A link to what  fits."),
        ("x.md:8", "size"),
        ("x.md:8", "which"),
        ("x.md:10", "X"),
        ("x.md:10", "5 GiB"),
        ("x.md:12", "item"),
    ]
    assert style.count("x.md").pronouns == 1000 * 2 / 11


@pytest.mark.parametrize(("words", "long"), [(25, 0), (26, 1)])
def test_long_sentences(words: int, long: int) -> None:
    passage = style.Passage.parse("x.py:1", f"Short. {'word ' * words}. Short.")
    assert len(passage.long_sentences) == long
