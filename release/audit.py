"""Asks `pip-audit` whether a pinned package has a known vulnerability, and fails without an answer.

`pip-audit` succeeds even if it finds no data about a package.  In that case this module fails.
Exit code 1 means a vulnerability; 2 means that packages could not be audited.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

LOCK: Final = Path(__file__).parents[1] / "requirements.lock"
_AUDIT: Final = (
    "pip-audit", "--requirement", str(LOCK), "--require-hashes", "--disable-pip",
    "--format", "json", "--progress-spinner", "off",
)  # fmt: skip


def judge(found: Mapping[str, Any]) -> tuple[int, list[str]]:
    """Return the exit code, and the lines to print.

    :param found: the output of `pip-audit --format json`.
    """
    packages = found.get("dependencies", [])
    known = [
        f"{each['name']} {each['version']}: {bad['id']}, mended in {bad.get('fix_versions') or '-'}"
        for each in packages
        for bad in each.get("vulns", [])
    ]
    unknown = [each["name"] for each in packages if "vulns" not in each]
    lines = [*known]
    if unknown or not packages:
        lines.append(
            f"NOT AUDITED: no data about vulnerabilities could be had of {len(unknown)} of"
            f" {len(packages)} packages. Run this where the index of packages answers:"
            f" {', '.join(unknown)}"
        )
    if not lines:
        lines.append(f"{len(packages)} packages have no known vulnerability")
    return (1 if known else 2 if unknown or not packages else 0), lines


def main() -> int:
    """Run the audit, print the result, and return the exit code."""
    # Use the program beside this Python: both belong to the environment for releases.
    program = Path(sys.executable).parent / _AUDIT[0]
    ran = subprocess.run(  # noqa: S603 - the arguments are fixed
        [str(program), *_AUDIT[1:]], stdout=subprocess.PIPE, text=True, check=False
    )
    try:
        code, lines = judge(json.loads(ran.stdout))
    except ValueError:
        # pip-audit failed, and printed the reason to standard error.
        code, lines = 2, ["NOT AUDITED: pip-audit could not do its work; see above"]
    print("\n".join(lines))
    return code


if __name__ == "__main__":
    sys.exit(main())
