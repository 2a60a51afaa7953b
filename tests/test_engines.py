"""Tests of engines, in a process of their own: Ray ends the process that uses it where one of its daemons dies."""

import subprocess
import sys
from pathlib import Path

import pytest

MODULE = Path(__file__).parent / "on_engines.py"


@pytest.mark.parametrize("which", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_pieces_elsewhere(which: str) -> None:
    asked = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "-m", which, str(MODULE)]
    for _ in range(2):
        made = subprocess.run(asked, cwd=MODULE.parent.parent, capture_output=True, text=True)
        if made.stdout.rstrip().endswith("="):  # pytest came to its last line: Ray did not end the process
            break
    assert made.returncode == 0, made.stdout[-20_000:] + made.stderr[-5_000:]
    assert " passed" in made.stdout.splitlines()[-1]
