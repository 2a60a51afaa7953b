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

import torch
from PIL import Image

import msgm
from apart import command, preload, run
from common import Report, arguments, main
from msgm.data import Source
from msgm.metrics.judge_training import JudgeSettings, train_judge
from msgm.model.networks import UNetPreset
from msgm.process.sde import VESDE

RULE = "label == 1"
WRITES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree", "os.truncate"}
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
TIMES = {"seconds", "audit seconds", "piece_seconds", "date", "command", "seal"}
"""What differs between two runs that are the same: the clock, and whether the words had --resume."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command line, run inside a folder of its own; ``resume`` are the words that go on with it."""

    words: Sequence[str]
    resume: Sequence[str] = ()
    out: str = "out"


def commands(base: Path) -> dict[str, Command]:
    """Every command that writes, on models and data as small as can be."""
    data, model, judge = ["--data", str(base / "data")], str(base / "model"), str(base / "judge")
    cpu, rule, out = ["--device", "cpu"], ["--forget", RULE], ["--out", "out"]
    look = ["-n", "4", "--sampler.steps", "2", "--nll-images", "0"]
    tune = ["--steps", "4", "--batch", "2", "--save-every", "1"]
    again = ["--resume"]
    return {
        "train": Command(words=["train", "--network", "small-16", *tune, *data, *cpu, *out], resume=again),
        "unlearn": Command(
            words=["unlearn", model, *rule, "--method", "unseen", *tune, *data, *cpu, *out], resume=again
        ),
        "train-judge": Command(
            words=["train-judge", "--epochs", "1", "--batch", "4", "--width", "2", *data, *cpu, *out]
        ),
        "sample": Command(
            words=["sample", model, "-n", "5", "--batch", "2", "--sampler.steps", "2", *cpu, *out], resume=again
        ),
        "nll": Command(words=["nll", model, "-n", "2", "--steps", "1", *data, *cpu, "--out", "out/x.json"]),
        "inpaint": Command(
            words=["inpaint", model, "--mask", "band", "-n", "2", "--sampler.steps", "2", *data, *cpu, *out]
        ),
        "reconstruct": Command(words=["reconstruct", model, "-n", "2", "--steps", "2", *data, *cpu, *out]),
        "evaluate": Command(words=["evaluate", model, *rule, "--judge", judge, *look, *data, *cpu, *out]),
        "convert": Command(words=["convert", model, *out]),
        "sweep": Command(
            words=[
                "sweep",
                model,
                *rule,
                "--judge",
                judge,
                "--method",
                "unseen",
                "--method",
                "redirect",
                "--seeds",
                "1",
                "--workers",
                "1",
                *tune,
                *look,
                *data,
                *cpu,
                *out,
            ],
            resume=again,
        ),
        "unlearn --seeds": Command(
            words=[
                "unlearn",
                model,
                *rule,
                "--judge",
                judge,
                "--method",
                "unseen",
                "--seeds",
                "2",
                "--workers",
                "1",
                "-n",
                "4",
                "--nll-images",
                "0",
                *tune,
                *data,
                *cpu,
                *out,
            ],
            resume=again,
        ),
    }


def prepare(base: Path) -> None:
    """A model, a judge and pictures of two kinds: bright on the left, bright on the right."""
    generator = torch.Generator().manual_seed(0)
    for split in ("train", "test"):
        for label in range(2):
            folder = base / "data" / split / f"{label}"
            folder.mkdir(parents=True)
            for k in range(10):
                pixels = torch.randint(0, 60, (16, 16), generator=generator, dtype=torch.uint8)
                pixels[:, 8 * label : 8 * label + 8] += 150
                Image.fromarray(pixels.numpy()).save(folder / f"{k}.png")
    torch.manual_seed(0)
    network = UNetPreset(size=16, patch=4, channels=(8,), attention=(), head_dim=4, groups=4).build(1)
    model = msgm.ScoreModel(network, VESDE(), shape=(1, 16, 16), patch=4)
    model.record = {"data": {"name": str(base / "data")}}
    msgm.save(model, base / "model")
    source = Source(str(base / "data"))
    settings = JudgeSettings(epochs=40, batch=10, width=4)
    train_judge(source.open("train"), source.open("test"), settings, progress=False).save(base / "judge")


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
        ended = run(self.inside(place, struck(self.command.words, None, 0, count)), self.root)
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
            action = _timed(command(self.command.words), after, number)
        else:
            action = struck(self.command.words, at, number)
        first = run(self.inside(place, action), self.root)
        if "Traceback" in first.err:
            faults.append("a traceback at the signal: " + first.err.strip().splitlines()[-1][:120])
        if first.status not in (0, -number, 128 + number):
            faults.append(f"status {first.status} at the signal: {first.err.strip()[-120:]}")
        if first.status == 0:
            became = "came too late"
        else:
            became = "went on"
            again = run(self.inside(place, command([*self.command.words, *self.command.resume])), self.root)
            if again.status == 2 and contents(place / self.command.out) != expected:
                became = "said why"
                again = run(self.inside(place, command([*self.command.words, "--overwrite"])), self.root)
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


def _timed(action: Callable[[], object], after: float, number: int) -> Callable[[], object]:
    """With a signal after some seconds."""

    def go() -> None:
        child = os.fork()
        if child == 0:
            time.sleep(after)
            with contextlib.suppress(ProcessLookupError):
                os.kill(os.getppid(), number)
            os._exit(0)
        action()

    return go


def measure(given: Sequence[str] | None = None) -> Path:
    """The benchmark; the path of its JSON file."""
    options = arguments(
        __doc__ or "",
        given,
        writes=(2, 24, "kills at writes of each command, spread over all of them"),
        instants=(1, 8, "signals at random instants of each command"),
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
            places = sorted({round(1 + k * (writes - 1) / max(1, options.writes - 1)) for k in range(options.writes)})
            became: Counter[str] = Counter()
            faulty = 0
            for k, at in enumerate(places):
                number = SIGNALS[0] if k % 3 else SIGNALS[k // 3 % 4]
                word, faults = room.hit(expected, number, at=at)
                _note(report, f"{name}, {signal.Signals(number).name} at write {at} of {writes}", faults)
                became[word] += 1
                faulty += bool(faults)
            for k in range(options.instants):
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
