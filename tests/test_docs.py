"""Code in the documentation does what it says, and its tables are those of the results beside it."""

import doctest
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
SCRIPTS = [path for path in sorted((ROOT / "scripts").glob("make_*.py")) if "--check" in path.read_text()]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_tables_are_made_from_the_committed_results(script: Path) -> None:
    assert subprocess.run([sys.executable, script, "--check"], check=False).returncode == 0


def test_adding_a_method() -> None:
    found = doctest.testfile(str(DOCS / "add-a-method.md"), module_relative=False)
    assert found.attempted > 15 and found.failed == 0


def test_a_new_term_takes_less_than_40_lines() -> None:
    lines = (DOCS / "add-a-method.md").read_text(encoding="utf-8").splitlines()
    code = [line for line in lines if line.startswith((">>> ", "... ", "..."))]
    start = next(i for i, line in enumerate(code) if "@dataclass" in line)
    end = next(i for i, line in enumerate(code) if "return Method" in line)
    assert 5 < end - start < 40
