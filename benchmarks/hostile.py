"""Hostile input: every command refuses it in one line, writes nothing, runs nothing, and takes little time and memory.

Each input is a command line in a process of its own; some are started from scratch, as a user starts them.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from apart import BEGAN, Ended, command, preload, run
from common import Report, arguments, main
from hostile_base import prepare
from hostile_data import data, runs
from hostile_files import Case
from hostile_models import judges, models
from hostile_words import invented, options_files
from hostile_words import options as words_of_options

LONGEST, SECONDS, MEMORY = 300, 2.0, 2**30
"""Characters of a message; seconds of the processor: those of the clock are other processes' as well; bytes."""
PATIENCE = 300.0
"""Seconds of the clock after which something does not end."""


def faults(case: Case, ended: Ended, written: bool, ran: bool) -> list[str]:
    """What is wrong with how an input ended; nothing, where it was refused as it should."""
    found = []
    if ended.hung:
        found.append("does not end")
    elif ended.status < 0:
        found.append(f"killed by signal {-ended.status}")
    elif "Traceback" in ended.err or ended.status not in (0, 2, 3, BEGAN):
        found.append("a bug: " + (ended.err.strip().splitlines() or ["no word"])[-1][:200])
    elif ended.status in (0, 3, BEGAN):
        found += ["taken"] if case.must else []
    else:
        lines = [line for line in ended.err.splitlines() if line.startswith("msgm: ")]
        found += ["not one line"] if len(lines) != 1 else ["too long"] if len(lines[0]) > LONGEST + 6 else []
        found += ["something was written"] if written else []
        found += [f"{ended.seconds:.1f} s"] if ended.seconds > SECONDS else []
        found += [f"{ended.memory >> 20} MiB"] if ended.memory > MEMORY else []
    found += ["moves the cursor"] if "\x1b" in ended.out + ended.err and not os.isatty(1) else []
    return found + (["code was run"] if ran else [])


def attempt(case: Case, base: Path, folder: Path, *, whole: bool = False) -> tuple[Ended, list[str]]:
    """Run one input; ``whole``: by a process that starts from scratch."""
    folder.mkdir()
    words = case.words(folder)
    before = {path for path in (*folder.rglob("*"), *base.glob("*"))}
    ended = (
        _started(words, folder) if whole else run(command(words, until_work=case.until_work), folder, limit=PATIENCE)
    )
    new = {path for path in (*folder.rglob("*"), *base.glob("*"))} - before
    new = {path for path in new if path.name not in ("out.txt", "err.txt")}
    return ended, faults(case, ended, bool(new), any("pwned" in path.name for path in new))


def _started(words: Sequence[str], folder: Path) -> Ended:
    import resource
    import time

    began, used = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "msgm", *words], capture_output=True, text=True, timeout=300, errors="backslashreplace"
    )
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    # To import torch takes longer than the limit; what counts is taken with imports made.
    spent = max(0.0, now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime - 30)
    wall = time.monotonic() - began
    return Ended(pid=0, status=done.returncode, out=done.stdout, err=done.stderr, seconds=spent, wall=wall, memory=0)


def cases(base: Path, *, each: int, random: int, seed: int, bombs: bool = True) -> Iterator[Case]:
    """All inputs: ``each`` values in the place of every entry of JSON, ``random`` made by hypothesis of each kind."""
    yield from models(base, each, seed)
    yield from judges(base, each, seed)
    yield from data(base, bombs)
    yield from runs(base, each, seed)
    yield from options_files(base)
    yield from words_of_options(base)
    yield from invented(base, random)


def chosen(options: object, base: Path) -> Iterator[Case]:
    """All inputs, or of each kind as many as a quick run takes."""
    every = list(cases(base, each=options.each, random=options.random, seed=options.seed, bombs=not options.quick))  # type: ignore[attr-defined]
    every = [case for case in every if (options.only or "") in case.kind]  # type: ignore[attr-defined]
    for _, group in groupby(sorted(every, key=lambda case: case.kind), key=lambda case: case.kind):
        some = list(group)
        if options.most:  # type: ignore[attr-defined]
            some = _some(random.Random(options.seed), some, options.most)  # type: ignore[attr-defined]
        yield from some


def _some(draw: random.Random, every: list[Case], number: int) -> list[Case]:
    return draw.sample(every, min(len(every), number))


def measure(given: Sequence[str] | None = None) -> Path:
    """The benchmark; the path of its JSON file."""
    options = arguments(
        __doc__ or "",
        given,
        each=(1, 3, "values in the place of each entry of a file"),
        random=(5, 60, "inputs of each kind that hypothesis makes"),
        most=(6, 100, "inputs of each kind; 0 for all"),
        only=(None, None, "kinds of input whose names have this word; by default all"),
        started=(1, 20, "inputs that are run by a process from scratch, too"),
    )
    report = Report(name="hostile", claim=" ".join((__doc__ or "").split("\n\n")[0].split()), options=options)
    preload()
    rows, told, wrong, slowest, largest = [], Counter[str](), 0, 0.0, 0
    with tempfile.TemporaryDirectory() as place:
        base = Path(place) / "base"
        prepare(base)
        todo = list(chosen(options, base))
        for number, case in enumerate(todo):
            ended, found = attempt(case, base, Path(place) / str(number))
            told[f"{case.kind}: {'refused' if ended.status == 2 else 'taken' if not found else 'at fault'}"] += 1
            slowest, largest = max(slowest, ended.seconds), max(largest, ended.memory)
            wrong += bool(found)
            if found:
                report.notes.append(
                    f"{case.kind}, {case.name[:80]}: {'; '.join(found)}".encode("ascii", "replace").decode()
                )
                print(report.notes[-1], file=sys.stderr, flush=True)
        draw = random.Random(options.seed)
        for number, case in enumerate(_some(draw, [c for c in todo if c.must and not c.until_work], options.started)):
            _, found = attempt(case, base, Path(place) / f"started-{number}", whole=True)
            wrong += bool(found)
            report.notes += [f"from scratch: {case.kind}, {case.name[:80]}: {'; '.join(found)}"] if found else []
    kinds = sorted({case.kind for case in todo})
    for kind in kinds:
        counts = {word: told[f"{kind}: {word}"] for word in ("refused", "taken", "at fault")}
        rows.append({"inputs": kind, **counts})
    report.facts = {
        "inputs": len(todo),
        "from_scratch": options.started,
        "faults": wrong,
        "refused": sum(r["refused"] for r in rows),
        "processor_seconds_at_most": round(slowest, 2),
        "memory_at_most_mib": largest >> 20,
    }
    report.tables = {"Inputs by kind": rows}
    return report.write()


if __name__ == "__main__":
    main(measure)
