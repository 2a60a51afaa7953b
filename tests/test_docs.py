"""Code in the documentation does what it says."""

import doctest
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def test_adding_a_method() -> None:
    found = doctest.testfile(str(DOCS / "add-a-method.md"), module_relative=False)
    assert found.attempted > 15 and found.failed == 0


def test_a_new_term_takes_less_than_40_lines() -> None:
    lines = (DOCS / "add-a-method.md").read_text(encoding="utf-8").splitlines()
    code = [line for line in lines if line.startswith((">>> ", "... ", "..."))]
    start = next(i for i, line in enumerate(code) if "@dataclass" in line)
    end = next(i for i, line in enumerate(code) if "return Method" in line)
    assert 5 < end - start < 40
