"""Kills and signals, at every write of every command and at random: the next start ends with an undisturbed result.

Each command line runs in a forked child. Before its k-th write in its folder, or after a random while, it gets a
signal; then it is started again, with --resume where it has one, and what is there is compared.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apart import command, preload, run
from common import Report, arguments, main
from faults_commands import Command, commands, prepare

WRITES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree", "os.truncate"}
LIMIT, GRACE = 1800.0, 20.0
"""Seconds that a command may take, and its workers to end after it."""
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
TIMES = {"seconds", "audit seconds", "piece_seconds", "date", "command", "seal"}
"""What differs between two runs that are the same: the clock, and whether the words had --resume."""


def struck(words: Sequence[str], at: int | None, number: int, counted: Path | None = None) -> Callable[[], object]:
    """The command line, hit by a signal before its ``at``-th write in its folder; None counts them into a file."""

    def action() -> None:
        here, seen = os.getcwd(), 0

        def hook(event: str, given: tuple[Any, ...]) -> None:
            nonlocal seen
            if event == "open":
                write = isinstance(given[2], int) and given[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) != 0
            else:
                write = event in WRITES
            if not write or not given or not _inside(given, here):
                return
            seen += 1
            if seen == at:
                os.kill(os.getpid(), number)

        sys.addaudithook(hook)
        try:
            command(words)()
        finally:
            if counted is not None:
                Path(counted).write_text(str(seen))

    return action


def _inside(given: Sequence[Any], here: str) -> bool:
    """Whether a path among these lies in the folder, and is not the file that counts."""
    paths = [os.fsdecode(each) for each in given[:2] if isinstance(each, str | bytes | os.PathLike)]
    return any((not os.path.isabs(p) or p.startswith(here)) and not p.endswith("count") for p in paths)


def contents(folder: Path) -> dict[str, Any]:
    """What is in a folder and does not depend on the clock."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix == ".json":
            found[str(path.relative_to(folder))] = _timeless(json.loads(path.read_text()))
        elif path.is_file() and path.suffix not in (".html", ".svg", ".lock"):
            found[str(path.relative_to(folder))] = path.read_bytes()
    return found


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if k not in TIMES and "second" not in k}
    return [_timeless(each) for each in value] if isinstance(value, list) else value


@dataclass(kw_only=True)
class Room:
    """Where one command is tried: a folder for each try, and what an undisturbed run leaves."""

    name: str
    command: Command
    root: Path
    tries: int = 0

    def whole(self) -> tuple[dict[str, Any], int, float]:
        """An undisturbed run: its result, its writes, its seconds."""
        place, count = self.fresh(), self.root / "count"
        ended = run(self.inside(place, struck(self.command.words, None, 0, count)), self.root, limit=LIMIT)
        assert ended.status == 0, f"{self.name}: {ended.err}"
        return contents(place / self.command.out), int(count.read_text()), ended.wall

    def fresh(self) -> Path:
        self.tries += 1
        place = self.root / f"try-{self.tries}"
        place.mkdir()
        return place

    @staticmethod
    def inside(place: Path, action: Callable[[], object]) -> Callable[[], object]:
        """In a folder, as the leader of its own processes."""

        def go() -> None:
            os.setsid()
            os.chdir(place)
            action()

        return go

    def hit(
        self, expected: dict[str, Any], number: int, *, at: int | None = None, after: float = 0.0
    ) -> tuple[str, list[str]]:
        """One signal and a next start: what became of it in a word, and what is wrong with that."""
        place, faults = self.fresh(), []
        if at is None:
            action, strike = command(self.command.words), (after, number)
        else:
            action, strike = struck(self.command.words, at, number), None
        first = run(self.inside(place, action), self.root, limit=LIMIT, strike=strike)
        if orphans := left_of(first.pid):
            faults.append(f"{len(orphans)} processes went on")
            for pid in orphans:
                os.kill(pid, signal.SIGKILL)
        if "Traceback" in first.err:
            faults.append("a traceback at the signal: " + first.err.strip().splitlines()[-1][:120])
        if first.status not in (0, -number, 128 + number):
            faults.append(f"status {first.status} at the signal: {first.err.strip()[-120:]}")
        if first.status == 0:
            became = "came too late"
        else:
            became = "went on"
            again = run(
                self.inside(place, command([*self.command.words, *self.command.resume])), self.root, limit=LIMIT
            )
            if again.status == 2 and contents(place / self.command.out) != expected:
                became = "said why"
                again = run(self.inside(place, command([*self.command.words, "--overwrite"])), self.root, limit=LIMIT)
            if again.status not in (0, 2):
                faults.append(f"the next start ends with {again.status}: {again.err.strip()[-160:]}")
        found = contents(place / self.command.out)
        if found != expected:
            other = sorted(k for k in {*found, *expected} if found.get(k) != expected.get(k))
            faults.append(f"another result: {', '.join(other[:4])}")
        left = [p.name for p in place.rglob("*") if p.name.endswith((".tmp", ".publishing.json"))]
        faults += [f"left over: {', '.join(left[:3])}"] if left else []
        shutil.rmtree(place)
        return became, faults


def left_of(leader: int) -> list[int]:
    """The processes of a session whose leader has ended, once they have had the time to notice."""
    until = time.monotonic() + GRACE
    while (found := _session(leader)) and time.monotonic() < until:
        time.sleep(0.05)
    return found


def _session(leader: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, session = path.read_text().rsplit(")", 1)[1].split()[:4]
            if int(session) == leader and state != "Z":
                found.append(int(path.parent.name))
    return found


def measure(given: Sequence[str] | None = None) -> Path:
    """The benchmark; the path of its JSON file."""
    options = arguments(
        __doc__ or "",
        given,
        writes=(2, 16, "kills at writes of each command, spread over all of them"),
        instants=(1, 5, "signals at random instants of each command"),
        only=(None, None, "one command; by default all"),
    )
    report = Report(name="faults", claim=" ".join((__doc__ or "").split("\n\n")[0].split()), options=options)
    preload()
    rows, wrong, draw = [], 0, random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "base"
        os.environ["MSGM_CACHE"] = str(Path(folder) / "cache")
        prepare(base)
        for name, each in commands(base).items():
            if options.only not in (None, name):
                continue
            room = Room(name=name, command=each, root=Path(folder) / name.replace(" ", "_"))
            room.root.mkdir()
            expected, writes, seconds = room.whole()
            tries = min(options.writes, each.most)
            places = sorted({round(1 + k * (writes - 1) / max(1, tries - 1)) for k in range(tries)})
            became: Counter[str] = Counter()
            faulty = 0
            for k, at in enumerate(places):
                number = SIGNALS[0] if k % 3 else SIGNALS[k // 3 % 4]
                word, faults = room.hit(expected, number, at=at)
                _note(report, f"{name}, {signal.Signals(number).name} at write {at} of {writes}", faults)
                became[word] += 1
                faulty += bool(faults)
            for k in range(min(options.instants, each.most)):
                after, number = draw.uniform(0, seconds), SIGNALS[k % 4]
                word, faults = room.hit(expected, number, after=after)
                _note(report, f"{name}, {signal.Signals(number).name} after {after:.2f} s", faults)
                became[word] += 1
                faulty += bool(faults)
            wrong += faulty
            rows.append(
                {
                    "command": name,
                    "writes": writes,
                    "kills": sum(became.values()),
                    "went on": became["went on"],
                    "said why": became["said why"],
                    "came too late": became["came too late"],
                    "faults": faulty,
                }
            )
    report.facts = {"kills": sum(row["kills"] for row in rows), "faults": wrong}
    report.tables = {"Kills by command": rows}
    return report.write()


def _note(report: Report, what: str, faults: Sequence[str]) -> None:
    if faults:
        report.notes.append(f"{what}: {'; '.join(faults)}")
        print(report.notes[-1], file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(measure)
