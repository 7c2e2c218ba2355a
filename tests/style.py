"""Measure how plainly the docstrings are written, with ``python -m tests.style``.

Prose led by pronouns (``what it gives to whoever asks for that``) has to be decoded before a reader
understands the sentence. Well-kept projects have 10 to 36 such pronouns in 1,000 words of
docstrings, and begin no ``:raises`` text with a pronoun.

The command prints the counts of each folder. With a folder or a file as argument, the command lists
the docstrings to rewrite instead. ``tests/unit/test_style.py`` holds the limits.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs

ROOT = Path(__file__).parents[1]
FOLDERS = ("src", "plugins", "tests", "examples", "demo", "benchmarks")
PRONOUNS = frozenset(
    ("what", "which", "that", "whoever", "it", "there", "its", "whose", "whatever")
)
OPENINGS = frozenset(("what", "whether", "who", "how"))
#: The number of words from which a sentence counts as long.
LONG = 26

_CODE = re.compile(r"::\n\n(?:[ \t]+.*\n?|\n)+|^\s*>>>.*$", re.MULTILINE)
_BREAK = re.compile(r"^\s*Break:.*?(?=\n\s*\n|\n\s*Break:|\Z)", re.MULTILINE | re.DOTALL)
_LITERAL = re.compile(r":\w+:`[^`]+`|``.+?``|`[^`]+`", re.DOTALL)
_FIELD = re.compile(r"^\s*:(\w+)[^:\n]*:", re.MULTILINE)
_WORD = re.compile(r"[A-Za-z]+(?:[-'][A-Za-z]+)*")
_END = re.compile(r"[.!?](?=\s|$)|\n\s*\n|\n\s*[-*] ")


@attrs.frozen
class Docstring:
    """The prose of one docstring.

    :ivar place: path and line of the docstring's owner.
    :ivar prose: text without literals, code, field names, and parts that ``tests/breaks.py`` reads.
    :ivar raises: the texts after ``:raises X:``.
    """

    place: str
    prose: str
    raises: tuple[str, ...]

    @classmethod
    def parse(cls, place: str, text: str) -> Docstring:
        """Return the prose of a docstring's text."""
        text = _LITERAL.sub("X", _BREAK.sub("", _CODE.sub("\n\n", inspect.cleandoc(text) + "\n")))
        parts = _FIELD.split(text)
        raises = tuple(
            each.strip()
            for field, each in zip(parts[1::2], parts[2::2], strict=True)
            if field == "raises"
        )
        return cls(place, "\n\n".join(parts[::2]).strip(), raises)

    @property
    def words(self) -> list[str]:
        """The words of the prose in lower case, without literals."""
        return [word.lower() for word in _WORD.findall(self.prose) if word != "X"]

    @property
    def pronouns(self) -> int:
        """The number of pronouns in the prose."""
        return sum(word in PRONOUNS for word in self.words)

    @property
    def long_sentences(self) -> list[str]:
        """The sentences with more than 25 words."""
        return [each.strip() for each in _END.split(self.prose) if len(_WORD.findall(each)) >= LONG]

    @property
    def opens_indirectly(self) -> bool:
        """True if the first word is What, Whether, Who or How."""
        return self.words[:1] != [] and self.words[0] in OPENINGS


@attrs.frozen
class Counts:
    """The counts of a folder."""

    docstrings: list[Docstring]

    @property
    def words(self) -> int:
        """The number of words."""
        return sum(len(each.words) for each in self.docstrings)

    @property
    def pronouns(self) -> float:
        """The number of pronouns in 1,000 words."""
        return 1000 * sum(each.pronouns for each in self.docstrings) / max(self.words, 1)

    @property
    def raises(self) -> list[str]:
        """The texts after ``:raises X:``."""
        return [text for each in self.docstrings for text in each.raises]

    @property
    def indirect_raises(self) -> list[str]:
        """The texts after ``:raises X:`` whose first word is a pronoun."""
        return [text for text in self.raises if opens_with_pronoun(text)]

    @property
    def openings(self) -> list[str]:
        """The places of the docstrings that open with What, Whether, Who or How."""
        return [each.place for each in self.docstrings if each.opens_indirectly]

    @property
    def long_sentences(self) -> int:
        """The number of sentences with more than 25 words."""
        return sum(len(each.long_sentences) for each in self.docstrings)


def opens_with_pronoun(text: str) -> bool:
    """Return whether the first word of a text is a pronoun."""
    first = _WORD.search(text)
    return first is not None and first[0].lower() in PRONOUNS


def docstrings(path: Path) -> Iterator[Docstring]:
    """Yield the docstrings in a file, or in all Python files of a folder."""
    for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(
                node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
            ) and (text := ast.get_docstring(node)):
                line = getattr(node, "lineno", 1)
                yield Docstring.parse(f"{file.relative_to(ROOT)}:{line}", text)


def count(folder: str) -> Counts:
    """Return the counts of a folder below the root of the project."""
    return Counts(list(docstrings(ROOT / folder)))


def main(paths: list[str]) -> None:
    """Print the counts of all folders, or the docstrings to rewrite below the paths."""
    for path in paths:
        for each in docstrings(Path(path).resolve()):
            if each.pronouns or each.opens_indirectly or each.long_sentences:
                print(f"{each.place}: {each.pronouns} pronouns\n{each.prose}\n")
    if not paths:
        print("folder       words  pronouns/1,000  :raises by pronoun  openings  long sentences")
    for folder in FOLDERS if not paths else ():
        counts = count(folder)
        raises = f"{len(counts.indirect_raises)} of {len(counts.raises)}"
        print(
            f"{folder:<11}{counts.words:>7}{counts.pronouns:>16.1f}{raises:>20}"
            f"{len(counts.openings):>10}{counts.long_sentences:>16}"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
