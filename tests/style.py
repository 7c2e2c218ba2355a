"""Measure how plainly docstrings and documents are written, with ``python -m tests.style``.

Prose led by pronouns (``what it gives to whoever asks for that``) has to be decoded before a reader
understands the sentence. Well-kept projects have 10 to 36 such pronouns in 1,000 words of
docstrings, and begin no ``:raises`` text with a pronoun.

The command prints the counts of each folder and document. With a folder or a file as argument, the
command lists the passages to rewrite instead. ``tests/unit/test_style.py`` holds the limits.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[1]
FOLDERS = ("src", "plugins", "tests", "examples", "demo", "benchmarks")
DOCUMENTS = tuple(
    str(each.relative_to(ROOT))
    for pattern in ("*.md", "docs/**/*.md", "examples/*/*.md")
    for each in sorted(ROOT.glob(pattern))
)
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
class Passage:
    """The prose of one docstring, or of one paragraph, heading or table cell of a document.

    :ivar place: path and line of the docstring's owner, or of the paragraph.
    :ivar prose: text without literals, code, field names, and parts that ``tests/breaks.py`` reads.
    :ivar raises: the texts after ``:raises X:``.
    """

    place: str
    prose: str
    raises: tuple[str, ...] = ()

    @classmethod
    def parse(cls, place: str, text: str) -> Passage:
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
    """The counts of a folder or of a document."""

    passages: list[Passage]

    @property
    def words(self) -> int:
        """The number of words."""
        return sum(len(each.words) for each in self.passages)

    @property
    def pronouns(self) -> float:
        """The number of pronouns in 1,000 words."""
        return 1000 * sum(each.pronouns for each in self.passages) / max(self.words, 1)

    @property
    def raises(self) -> list[str]:
        """The texts after ``:raises X:``."""
        return [text for each in self.passages for text in each.raises]

    @property
    def indirect_raises(self) -> list[str]:
        """The texts after ``:raises X:`` whose first word is a pronoun."""
        return [text for text in self.raises if opens_with_pronoun(text)]

    @property
    def openings(self) -> list[str]:
        """The places of the docstrings that open with What, Whether, Who or How."""
        return [each.place for each in self.passages if each.opens_indirectly]

    @property
    def long_sentences(self) -> int:
        """The number of sentences with more than 25 words."""
        return sum(len(each.long_sentences) for each in self.passages)


def opens_with_pronoun(text: str) -> bool:
    """Return whether the first word of a text is a pronoun."""
    first = _WORD.search(text)
    return first is not None and first[0].lower() in PRONOUNS


def docstrings(path: Path) -> Iterator[Passage]:
    """Yield the docstrings in a file, or in all Python files of a folder."""
    for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(
                node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
            ) and (text := ast.get_docstring(node)):
                line = getattr(node, "lineno", 1)
                yield Passage.parse(f"{file.relative_to(ROOT)}:{line}", text)


def paragraphs(path: Path) -> Iterator[Passage]:
    """Yield the prose of a Markdown document, without code."""
    for token in MarkdownIt("commonmark").enable("table").parse(path.read_text()):
        if token.type == "inline" and token.map:
            prose = "".join(map(_text, token.children or ()))
            yield Passage(f"{path.relative_to(ROOT)}:{token.map[0] + 1}", prose)


def _text(token: Token) -> str:
    """Return the prose of a part of a paragraph."""
    if token.type in ("code_inline", "image"):
        return "X"
    return " " if token.type == "softbreak" else token.content if token.type == "text" else ""


def passages(path: Path) -> Iterator[Passage]:
    """Return the prose of a document, of a Python file, or of the Python files of a folder."""
    return paragraphs(path) if path.suffix == ".md" else docstrings(path)


def count(name: str) -> Counts:
    """Return the counts of a folder or document, named from the root of the project."""
    return Counts(list(passages(ROOT / name)))


def main(paths: list[str]) -> None:
    """Print the counts of all folders and documents, or the passages to rewrite in the paths."""
    for path in paths:
        for each in passages(Path(path).resolve()):
            if each.pronouns or each.opens_indirectly or each.long_sentences:
                print(f"{each.place}: {each.pronouns} pronouns\n{each.prose}\n")
    names = () if paths else (*FOLDERS, *DOCUMENTS)
    width = max(map(len, names), default=0)
    if names:
        print(f"{'':<{width}}  words  pronouns/1,000  :raises by pronoun  openings  long sentences")
    for name in names:
        counts = count(name)
        raises = f"{len(counts.indirect_raises)} of {len(counts.raises)}"
        print(
            f"{name:<{width}}{counts.words:>7}{counts.pronouns:>16.1f}{raises:>20}"
            f"{len(counts.openings):>10}{counts.long_sentences:>16}"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
