"""Lists of digests, in the forms used by real projects."""

from __future__ import annotations

import hashlib
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootvol.model import Digest
from bootvol_plugins.http.checksums import (
    LONGEST_LINE,
    MOST_LINES,
    Ambiguous,
    find_digest,
    is_list,
    text_of,
)
from tests.fuzzing import fuzz

WEAK, GOOD, BEST = (hashlib.new(each, b"x").hexdigest() for each in ("md5", "sha256", "sha512"))
WORST = hashlib.blake2b(b"x").hexdigest()
OTHER = hashlib.sha256(b"y").hexdigest()
PATH = "pub/41/images/a.img"

#: The output of PowerShell's Get-FileHash, as a list and as a table.
LISTED = f"""

Algorithm : SHA256
Hash      : {GOOD.upper()}
Path      : C:\\images\\a.img


"""
TABLE = f"""
Algorithm       Hash                                                                   Path
---------       ----                                                                   ----
SHA256          {GOOD.upper()}       C:\\images\\a.img
"""


def grouped(digest: str, length: int) -> str:
    """Return a digest in groups of digits, as gpg writes digests."""
    parts = [digest[at : at + length] for at in range(0, len(digest), length)]
    return " ".join(parts).upper()


SIGNED = f"""-----BEGIN PGP SIGNED MESSAGE-----
Hash: SHA256

# a.img: 7 bytes
SHA256 (a.img) = {GOOD}
- -----
-----BEGIN PGP SIGNATURE-----

{OTHER}  a.img
-----END PGP SIGNATURE-----
"""


@pytest.mark.parametrize(
    "text",
    [
        f"{GOOD}  a.img\n",
        f"{GOOD} *a.img",
        f"{GOOD}  ./a.img\n",
        f"{GOOD}\ta.img\n",
        f"{GOOD}    a.img  \n",
        f"{GOOD.upper()}  a.img\n",
        f"{GOOD}  a.img\r\n{OTHER}  b.img\r\n",
        f"\ufeff{GOOD}  a.img\n",
        f"# made today\n\n{OTHER}  a.img.old\n{GOOD}  a.img\n",
        f"{GOOD}  41/images/a.img\n{OTHER}  40/images/a.img\n",
        f"{OTHER}  40/images/a.img\n{GOOD}  a.img\n",
        f"{GOOD}  /srv/build/a.img\n",
        f"SHA256 (a.img) = {GOOD}\n",
        f"SHA256 (images/a.img) = {GOOD}\nSHA256 (b.img) = {OTHER}\n",
        f"SHA256(a.img)= {GOOD}\n",
        f"SHA2-256(a.img)= {GOOD}\n",
        f"MD5 (a.img) = {WEAK}\nSHA256 (a.img) = {GOOD}\n",
        f"{WEAK}  a.img\n{GOOD}  a.img\n",
        f"sha256:{GOOD}  a.img\n",
        f"{GOOD}\n",
        f"sha256:{GOOD}",
        f"SHA256: {GOOD}\r\n",
        f"SHA2-256 = {GOOD}\n",
        f"md5:{WEAK}\nsha256:{GOOD}\n",
        f"{GOOD}\nblake2b:{WORST}\nlength = {OTHER}\n",
        SIGNED,
        SIGNED.replace("\n", "\r\n"),
        f"{GOOD}  a.img\n{GOOD}  a.img\n",
        f"# SHA256 HASH\n{GOOD}  a.img\n# SHA512 HASH\n{BEST}  b.img\n",
        f"a.img {GOOD}\nb.img {OTHER}\n",
        f"images/a.img\t{GOOD.upper()}\r\n",
        f"SHA256 {GOOD}\n",
        LISTED,
        LISTED.replace("\n", "\r\n"),
        LISTED.replace(GOOD.upper(), f"{GOOD[:40]}\n            {GOOD[40:]}"),
        LISTED.replace("a.img", "very-long-\n            path\\a.img"),
        LISTED + LISTED.replace("a.img", "b.img").replace(GOOD.upper(), OTHER),
        LISTED.split("Path")[0],
        TABLE,
        TABLE + TABLE.replace("a.img", "b.img").replace(GOOD.upper(), OTHER),
        f"a.img: {grouped(GOOD, 8)}\nb.img: {grouped(OTHER, 8)}\n",
        f"a.img: {grouped(GOOD, 8)[:40]}\n       {grouped(GOOD, 8)[40:]}\n",
        f"41/images/a.img: \n{grouped(GOOD, 8)}\n",
        f"a.img:    MD5 = {grouped(WEAK, 2)}\na.img: RMD160 = {grouped(WEAK + WEAK[:8], 4)}\n"
        f"a.img: SHA256 = {grouped(GOOD, 8)[:54]}\n                {grouped(GOOD, 8)[54:]}\n",
    ],
)
def test_forms(text: str) -> None:
    assert find_digest(text, PATH) == Digest("sha256", GOOD)


@pytest.mark.parametrize(
    ("text", "digest"),
    [
        (f"{GOOD}  a.img\n{BEST}  a.img\n", Digest("sha512", BEST)),
        (f"{WEAK}  a.img\n", Digest("md5", WEAK)),
        (f"SHA3-256 (a.img) = {OTHER}\nMD5 (a.img) = {WEAK}\n", Digest("md5", WEAK)),
        (
            f"# BLAKE2B HASH\n{WORST}  a.img\n# SHA512 HASH\n{BEST}  a.img\n",
            Digest("sha512", BEST),
        ),
    ],
)
def test_the_strongest(text: str, digest: Digest) -> None:
    assert find_digest(text, PATH) == digest


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<!DOCTYPE html><title>No</title>",
        f"{GOOD}  b.img\n",
        f"{GOOD}  xa.img\n",
        f"{GOOD}  a.img.gz\n",
        f"{GOOD}\n{OTHER}\n",
        f"sha256:{GOOD}\nsha256:{OTHER}\n",
        f"sha512:{GOOD}\n",
        f"fingerprint: {GOOD}\n",
        f"fingerprint {GOOD}\n",
        f"key.txt = {GOOD}\n",
        f"a.img: {grouped(GOOD, 8)} 0\n",
        f"a.img: {grouped(GOOD, 8)} 00\n",
        f"a.img: SHA3-256 = {grouped(GOOD, 8)}\n",
        f"a.img: RMD160 = {grouped(WEAK + WEAK[:8], 4)}\n",
        LISTED.replace("SHA256", "RIPEMD160"),
        LISTED.replace("a.img", "b.img"),
        TABLE.replace("images\\a.img", "ima..."),
        f"{GOOD}\n{OTHER}  b.img\n",
        f"{GOOD[:-1]}  a.img\n",
        f"SHA512 (a.img) = {GOOD}\n",
        f"SHA3-256 (a.img) = {GOOD}\n",
        f"# BLAKE2B HASH\n{WORST}  a.img\n",
        f"-----BEGIN PGP SIGNED MESSAGE-----\n{GOOD}  a.img\n",
    ],
)
def test_it_is_not_listed(text: str) -> None:
    assert find_digest(text, PATH) is None


@pytest.mark.parametrize(
    ("text", "digest"),
    [
        (f"{GOOD}  a-Build1.img\n", Digest("sha256", GOOD)),
        (f"MD5 (b.img) = {WEAK}\nSHA256 (b.img) = {GOOD}\n", Digest("sha256", GOOD)),
        (f"{GOOD}  a.img\n{OTHER}  b.img\n", Digest("sha256", GOOD)),
        (f"{GOOD}  b.img\n{OTHER}  c.img\n", None),
        (f"{GOOD}\n", Digest("sha256", GOOD)),
        ("", None),
    ],
)
def test_the_list_is_named_for_the_file(text: str, digest: Digest | None) -> None:
    assert find_digest(text, PATH, "a.img.sha256", by_list=True) == digest


@pytest.mark.parametrize("ending", ["gz", "bz2", "xz", "zst"])
def test_the_digest_of_an_unpacked_image_is_none_of_the_packed_one(ending: str) -> None:
    path, listed_in = f"{PATH}.{ending}", f"a.img.{ending}.sha256"
    for listed, digest in (
        ("a.img", None),
        ("./images/a.img", None),
        (f"a.img.{ending}", Digest("sha256", GOOD)),
        (f"a-7.img.{ending}", Digest("sha256", GOOD)),
        ("-", Digest("sha256", GOOD)),
    ):
        found = find_digest(f"{GOOD}  {listed}\n", path, listed_in, by_list=True)
        assert found == digest


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_encodings(encoding: str) -> None:
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    data = f"{mark}{GOOD}  \u00e4.img\r\n".encode(encoding)
    assert find_digest(text_of(data), "\u00e4.img") == Digest("sha256", GOOD)


def test_two_digests_for_one_name() -> None:
    with pytest.raises(Ambiguous):
        find_digest(f"{GOOD}  a.img\n{OTHER}  a.img\n", PATH)
    with pytest.raises(Ambiguous):
        find_digest(f"{GOOD}  x/a.img\n{OTHER}  y/a.img\n", PATH)


@pytest.mark.parametrize("listed", ["\u00e9.img", "e\u0301.img"])
@pytest.mark.parametrize("asked", ["\u00e9.img", "e\u0301.img"])
def test_names_composed_or_not(listed: str, asked: str) -> None:
    assert find_digest(f"{GOOD}  {listed}\n", f"x/{asked}") == Digest("sha256", GOOD)


def test_marks_without_end_are_not_put_in_order() -> None:
    """One name with many marks would take minutes, with no other thread running.

    Break: `plugins/bootvol_plugins/http/checksums.py`: `if len(part) <= _LONGEST_NAME else part` ->
    `if True else part`.
    """
    listed, asked = "e\u0301" * 600, "\u00e9" * 600
    assert find_digest(f"{GOOD}  {listed}\n", f"x/{asked}") is None
    assert find_digest(f"{GOOD}  {listed}\n", f"x/{listed}") == Digest("sha256", GOOD)


def test_lines_are_limited() -> None:
    """No list takes much time.

    Break: `plugins/bootvol_plugins/http/checksums.py`: `if len(lines) > MOST_LINES:` -> `if
    False:`.
    Break: `plugins/bootvol_plugins/http/checksums.py`: `if len(line) <= LONGEST_LINE]` -> `if
    True]`.
    """
    line = f"{GOOD}  a.img"
    assert is_list("\n" * (MOST_LINES - 1) + line)
    assert not is_list("\n" * MOST_LINES + line)
    padded = f"{GOOD}{' ' * (LONGEST_LINE - len(line))}  a.img"
    assert is_list(padded)
    assert not is_list(f" {padded}")


def test_a_digest_without_a_name_may_be_of_any_file() -> None:
    assert find_digest(GOOD, PATH) == Digest("sha256", GOOD)
    assert find_digest(GOOD, PATH, bare=False) is None


_NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]), min_size=1).filter(
    lambda name: not set(name) & set("/\\()*#;") and name not in {".", ".."}
)


@fuzz(100)
@given(_NAMES, st.binary(), st.sampled_from(["md5", "sha1", "sha256", "sha384", "sha512"]))
def test_what_the_tools_write_is_read(name: str, content: bytes, algorithm: str) -> None:
    value = hashlib.new(algorithm, content).hexdigest()
    for line in (f"{value}  {name}", f"{value} *{name}", f"{algorithm.upper()} ({name}) = {value}"):
        assert find_digest(f"{line}\n", f"dir/{name}") == Digest(algorithm, value)


@fuzz(100)
@given(st.text(), st.text())
def test_any_text_is_read(text: str, path: str) -> None:
    with suppress(Ambiguous):
        find_digest(text, path)


@pytest.mark.parametrize(
    "command",
    [
        ["sha256sum"],
        ["sha256sum", "--tag"],
        ["sha512sum", "--binary"],
        ["sha1sum", "--tag"],
        ["md5sum"],
    ],
)
def test_lists_as_coreutils_write_them(tmp_path: Path, command: list[str]) -> None:
    names = ["a.img", "a b (1).img", "a\\b.img", "a\nb.img"]
    for name in names:
        (tmp_path / name).write_text(name)
    made = subprocess.run([*command, *names], cwd=tmp_path, check=True, capture_output=True)
    for name in names:
        found = find_digest(text_of(made.stdout), name)
        assert found is not None
        assert found.value == hashlib.new(found.algorithm, name.encode()).hexdigest()


def test_escaped_names() -> None:
    assert find_digest(f"\\{GOOD}  a\\\\b\\nc\n", "a\\b\nc") is not None


@pytest.mark.parametrize(
    "name",
    [
        "B2SUMS",
        "BLAKE3SUMS",
        "RMD160SUMS",
        "blake2b.txt",
        "SHA3-256SUMS",
        "disk.img.b2sum",
        "d.sha3-512",
    ],
)
def test_lists_of_other_algorithms(name: str) -> None:
    """Their digests are as long as those of sha256 or sha512."""
    assert find_digest(f"{GOOD}  disk.img\n", "disk.img", name) is None


@pytest.mark.parametrize(
    "name",
    [
        *("SHA384SUMS", "sha384sum.txt", "b2g.img.sha256", "blake.img.sha256", "sha3nix.img.md5"),
        *("b2.img.sha256sums", "SHA256SUMS", "CHECKSUM", "disk.b3d.img.sha512", "b3.sha3.sha256"),
    ],
)
def test_lists_of_images_with_names_like_algorithms(name: str) -> None:
    """Break: `plugins/bootvol_plugins/http/checksums.py`: `|sha\\d+|md5)` -> `)`."""
    found = find_digest(f"{GOOD}  disk.img\n", "disk.img", name)
    assert found is not None
