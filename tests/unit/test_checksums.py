"""Lists of digests, in the forms used by real projects."""

from __future__ import annotations

import hashlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootvol.model import Digest
from bootvol_plugins.http.checksums import Ambiguous, find_digest, text_of
from tests.fuzz import fuzz

WEAK, GOOD, BEST = (hashlib.new(each, b"x").hexdigest() for each in ("md5", "sha256", "sha512"))
WORST = hashlib.blake2b(b"x").hexdigest()
OTHER = hashlib.sha256(b"y").hexdigest()
PATH = "pub/41/images/a.img"

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
        SIGNED,
        SIGNED.replace("\n", "\r\n"),
        f"{GOOD}  a.img\n{GOOD}  a.img\n",
        f"# SHA256 HASH\n{GOOD}  a.img\n# SHA512 HASH\n{BEST}  b.img\n",
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
        f"{GOOD[:-1]}  a.img\n",
        f"SHA512 (a.img) = {GOOD}\n",
        f"SHA3-256 (a.img) = {GOOD}\n",
        f"# BLAKE2B HASH\n{WORST}  a.img\n",
        f"-----BEGIN PGP SIGNED MESSAGE-----\n{GOOD}  a.img\n",
    ],
)
def test_it_is_not_listed(text: str) -> None:
    assert find_digest(text, PATH) is None


def test_lists_of_other_algorithms() -> None:
    assert find_digest(f"{BEST}  a.img\n", PATH, "B2SUMS") is None
    assert find_digest(f"{BEST}  a.img\n", PATH, "SHA512SUMS") is not None


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


def test_escaped_names() -> None:
    assert find_digest(f"\\{GOOD}  a\\\\b\\nc\n", "a\\b\nc") is not None
