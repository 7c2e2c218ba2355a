"""Links and citations lead to a file, a heading or a section that exists."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
ARCHITECTURE = ROOT / "docs" / "architecture.md"
SPECIFICATION = ROOT / "docs" / "specification"
TEXTS = (".py", ".md", ".conf", ".toml", ".sh", ".c", ".rb", ".go")

#: Line breaks, with the signs of a comment in the next line.
_BREAK = re.compile(r"\n[ \t]*(?:#:?|//)?[ \t]*")
_NUMBER = r"B?\d+(?:\.\d+)*"
_SECTIONS = rf"[Ss]ections? ({_NUMBER}(?:(?:, | and | to ){_NUMBER})*)"
_CITATION = re.compile(rf"[Ss]pecification, {_SECTIONS}")
_DOCUMENT = re.compile(r"docs/[\w./-]+\.md(?:#[\w-]+)?")
_LINK = re.compile(r"\]\(([^)\s]+)\)|^\[[^]]+\]: (\S+)$", re.MULTILINE)
_CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.DOTALL | re.MULTILINE)
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)


def _files() -> list[Path]:
    """Return the project's text files, with new files that are not committed yet."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    found = [ROOT / name for name in listed.stdout.splitlines()]
    return [each for each in found if each.suffix in TEXTS and each.is_file()]


@cache
def _anchors(document: Path) -> frozenset[str]:
    """Return the anchors of a document's headings, by GitHub's rule."""
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.DOTALL | re.MULTILINE)
    found: set[str] = set()
    for heading in _HEADING.findall(text):
        title = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")
        number = 0
        while anchor in found:
            number += 1
            anchor = f"{anchor.removesuffix(f'-{number - 1}')}-{number}"
        found.add(anchor)
    return frozenset(found)


def _leads(base: Path, target: str) -> bool:
    """Tell whether a link from a folder leads to a file and, if named, a heading."""
    path, _, anchor = target.partition("#")
    document = base / path
    return document.exists() and (not anchor or anchor in _anchors(document))


def _sections() -> list[str]:
    return [
        number
        for document in sorted(SPECIFICATION.glob("*.md"))
        for number in re.findall(rf"^#{{2,3}} ({_NUMBER}) ", document.read_text(), re.MULTILINE)
    ]


def _cited(text: str, citation: re.Pattern[str]) -> Iterator[str]:
    for match in citation.finditer(_BREAK.sub(" ", text)):
        yield from re.findall(_NUMBER, match[1])


def test_no_section_number_of_the_specification_is_used_twice() -> None:
    sections = _sections()
    assert len(sections) == len(set(sections))


def test_every_citation_of_the_specification_names_a_section() -> None:
    sections = set(_sections())
    cited = [(file, each) for file in _files() for each in _cited(file.read_text(), _CITATION)]
    within = [
        (file, each)
        for file in SPECIFICATION.glob("*.md")
        for each in _cited(file.read_text(), re.compile(_SECTIONS))
    ]
    assert cited
    assert within
    assert [(str(file), each) for file, each in cited + within if each not in sections] == []


def test_every_link_of_a_document_leads_somewhere() -> None:
    links = [
        (document, link or definition)
        for document in _files()
        if document.suffix == ".md"
        for link, definition in _LINK.findall(_CODE.sub("", document.read_text()))
    ]
    local = [(document, each) for document, each in links if ":" not in each.partition("#")[0]]
    assert local
    wrong = [
        (str(document), each)
        for document, each in local
        if not _leads(document if each.startswith("#") else document.parent, each)
    ]
    assert wrong == []


def test_every_mentioned_document_exists() -> None:
    mentions = [
        (file, each) for file in _files() for each in _DOCUMENT.findall(file.read_text("utf-8"))
    ]
    assert mentions
    assert [(str(file), each) for file, each in mentions if not _leads(ROOT, each)] == []


def test_the_walk_names_modules_that_exist() -> None:
    files = {f"/{file.relative_to(ROOT)}" for file in _files()}
    named = re.findall(r"`([\w./-]+\.(?:py|conf|sh))`", ARCHITECTURE.read_text())
    assert named
    assert [each for each in named if not any(file.endswith(f"/{each}") for file in files)] == []


def test_the_walk_names_each_package_and_module_of_the_top() -> None:
    text = ARCHITECTURE.read_text()
    tops = [
        f"{each.name}/`" if each.is_dir() else f"{each.name}`"
        for each in (ROOT / "src" / "bootvol").iterdir()
        if (each / "__init__.py").exists() or (each.suffix == ".py" and each.stem != "__init__")
    ]
    assert tops
    assert [each for each in sorted(tops) if each not in text] == []
