"""Pieces of work on several processes: all are done, errors come through, and Ctrl-C ends them without a mess."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from msgm.errors import UserError
from msgm.experiments.core.pool import begun, run_all
from msgm.progress import Tick
from msgm.storage import write_json


def double(folder: Path, number: int, tick: Tick) -> None:
    """A file each."""
    if number < 0:
        raise UserError("negative")
    (folder / str(number)).write_text(str(2 * number))
    tick(number, note=f"piece {number}")


def dies(number: int, tick: Tick) -> None:
    os._exit(9)


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_all_pieces_are_done_and_tell_what_they_did(workers: int, tmp_path: Path) -> None:
    told: list[tuple[float, str]] = []
    run_all(
        partial(double, tmp_path), [1, 2, 3], workers=workers, tick=lambda amount, note="": told.append((amount, note))
    )
    assert sorted(told) == [(1, "piece 1"), (2, "piece 2"), (3, "piece 3")]
    assert (tmp_path / "3").read_text() == "6"
    with pytest.raises(UserError, match="negative"):
        run_all(partial(double, tmp_path), [4, -1], workers=workers, tick=lambda *_, **__: None)


@pytest.mark.slow
def test_a_process_that_dies_is_reported_in_words() -> None:
    with pytest.raises(UserError, match="ended unexpectedly"):
        run_all(dies, [1, 2], workers=2, tick=lambda *_, **__: None)


SLOW = """
import signal, sys, time
from functools import partial
from pathlib import Path
sys.path.insert(0, {here!r})
from msgm.experiments.core.pool import run_all

def work(folder, item, tick):
    (folder / f"begun-{{item}}").touch()
    if item:
        time.sleep(100)
    (folder / f"done-{{item}}").touch()

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job in the background does not have
    run_all(partial(work, Path(sys.argv[1])), range(5), workers=2, tick=lambda *_, **__: None)
"""


@pytest.mark.parametrize("to_all", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_ctrl_c_ends_what_is_under_way_and_begins_nothing_more(to_all: bool, tmp_path: Path) -> None:
    """As `kill` sends it, to the process that waits alone, and as a terminal does, to all of them."""
    script, out = tmp_path / "main.py", tmp_path / "out"
    out.mkdir()
    script.write_text(SLOW.format(here=str(Path(__file__).parent)))
    process = subprocess.Popen(
        [sys.executable, str(script), str(out)], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        until = time.monotonic() + 300
        while len(list(out.glob("begun-*"))) < 3 and time.monotonic() < until:
            time.sleep(0.05)
        if to_all:
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=95)[1]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert sorted(path.name for path in out.iterdir()) == ["begun-0", "begun-1", "begun-2", "done-0"]
    assert process.returncode != 0 and said.count("Traceback") == 1
    assert (
        said.strip().splitlines()[-1] == "KeyboardInterrupt: interrupted; what is finished is kept, go on with --resume"
    )


def test_what_was_begun_with_something_else_is_not_resumed(tmp_path: Path) -> None:
    path = tmp_path / "job.json"
    assert not begun(path, {"a": (1, 2)})
    write_json(path, {"a": [1, 2]})
    assert begun(path, {"a": (1, 2)})
    with pytest.raises(UserError, match="begun with other settings"):
        begun(path, {"a": (1, 3)})
