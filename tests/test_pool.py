"""Pieces of work on several processes: all are done, errors come through, and Ctrl-C ends them without a mess."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from msgm.errors import UserError
from msgm.experiments.core.pieces import Piece, prepare
from msgm.experiments.core.pool import run_all
from msgm.progress import Tick


def double(number: int, tick: Tick) -> dict[str, int]:
    """What a piece may do."""
    if number < 0:
        raise UserError("negative")
    tick(number, note=f"piece {number}")
    return {"twice": 2 * number}


def dies(tick: Tick) -> dict[str, int]:
    os._exit(9)


def pieces(folder: Path, *numbers: int, **identity: Any) -> list[Piece]:
    return [
        Piece(key=str(n), folder=folder / str(n), identity={"n": n, **identity}, run=partial(double, n))
        for n in numbers
    ]


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_all_pieces_are_done_and_tell_what_they_did(workers: int, tmp_path: Path) -> None:
    told: list[tuple[float, str]] = []
    done = pieces(tmp_path, 1, 2, 3)
    run_all(done, workers=workers, tick=lambda amount, note="": told.append((amount, note)))
    assert sorted(told) == [(1, "piece 1"), (2, "piece 2"), (3, "piece 3")]
    assert [piece.result for piece in done] == [{"twice": 2}, {"twice": 4}, {"twice": 6}]
    with pytest.raises(UserError, match="negative"):
        run_all(pieces(tmp_path, 4, -1), workers=workers, tick=lambda *_, **__: None)


@pytest.mark.slow
def test_a_process_that_dies_is_reported_in_words(tmp_path: Path) -> None:
    deadly = [replace(piece, run=dies) for piece in pieces(tmp_path, 1, 2)]
    with pytest.raises(UserError, match="ended unexpectedly"):
        run_all(deadly, workers=2, tick=lambda *_, **__: None)


SLOW = """
import signal, sys, time
from functools import partial
from pathlib import Path
sys.path.insert(0, {here!r})
from msgm.experiments.core.pieces import Piece
from msgm.experiments.core.pool import run_all

def work(folder, item, tick):
    import os
    (folder / f"begun-{{item}}").write_text(str(os.getpid()))
    if item:
        time.sleep(100)
    (folder / f"done-{{item}}").touch()
    return {{}}

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job in the background does not have
    out = Path(sys.argv[1])
    all = [Piece(key=str(k), folder=out / "pieces", identity={{}}, run=partial(work, out, k)) for k in range(5)]
    run_all(all, workers=2, tick=lambda *_, **__: None)
"""


@contextmanager
def begun(folder: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process with two workers, once the first piece is done and two others are under way."""
    script, out = folder / "main.py", folder / "out"
    out.mkdir()
    script.write_text(SLOW.format(here=str(Path(__file__).parent)))
    process = subprocess.Popen(
        [sys.executable, str(script), str(out)], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        until = time.monotonic() + 300
        while len(list(out.glob("begun-*"))) < 3 and time.monotonic() < until:
            time.sleep(0.05)
        yield process, out
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("to_all", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_ctrl_c_ends_what_is_under_way_and_begins_nothing_more(to_all: bool, tmp_path: Path) -> None:
    """As `kill` sends it, to the process that waits alone, and as a terminal does, to all of them."""
    with begun(tmp_path) as (process, out):
        if to_all:
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=95)[1]
    assert sorted(path.name for path in out.iterdir() if path.is_file()) == ["begun-0", "begun-1", "begun-2", "done-0"]
    assert process.returncode != 0 and said.count("Traceback") == 1
    assert said.strip().splitlines()[-1] == "msgm.errors.Interrupted: interrupted; what is finished is kept"


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_workers_end_with_the_process_that_started_them(number: int, tmp_path: Path) -> None:
    with begun(tmp_path) as (process, out):
        workers = {int(path.read_text()) for path in out.glob("begun-*")}
        assert len(workers) == 2
        process.send_signal(number)
        process.communicate(timeout=95)
    until = time.monotonic() + 95  # far less than what they were about to do
    while any(map(alive, workers)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(alive, workers))
    assert sorted(path.name for path in out.glob("done-*")) == ["done-0"]


def alive(pid: int) -> bool:
    """Whether there is such a process that has not ended yet; one that has may still wait to be reaped."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not (state.exists() and state.read_text().rsplit(")", 1)[1].split()[0] == "Z")


def test_what_was_begun_with_something_else_is_not_resumed(tmp_path: Path) -> None:
    (piece,) = first = pieces(tmp_path, 1, lr=(1, 2), much="x" * 90)
    assert not piece.begun() and prepare(first, resume=True) == first
    assert piece.begun()
    run_all(first, workers=1, tick=lambda *_, **__: None)
    assert prepare(first, resume=True) == []
    (other,) = again = pieces(tmp_path, 1, lr=(1, 3), much="y" * 90)
    with pytest.raises(
        UserError, match=r"begun with other settings: lr was \[1, 2\], is \[1, 3\]; much was x{24}…, is y"
    ):
        prepare(again, resume=True)
    assert piece.done
    # Without resuming, what another run of the same name left there goes.
    assert prepare(again, resume=False) == again and not other.done and other.begun()


def test_files_of_others_are_not_touched(tmp_path: Path) -> None:
    mine = pieces(tmp_path, 1, 2)
    prepare(mine, resume=False)
    (tmp_path / "2" / "job.json").unlink()
    (tmp_path / "2" / "thesis.txt").write_text("mine")
    for resume in (True, False):
        with pytest.raises(UserError, match="holds files that are not of such a run"):
            prepare(mine, resume=resume)
    assert (tmp_path / "2" / "thesis.txt").read_text() == "mine" and mine[0].begun()
