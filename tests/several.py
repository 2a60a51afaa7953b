"""What `test_processes` has one process do, and two: runs, samples, likelihoods and commands, told in files."""

import os
import signal
import sys
from pathlib import Path

import torch
from tiny import quiet, tiny_data, tiny_model, tiny_split
from torch import Tensor

from msgm.attacks.target import Budget
from msgm.cli import auditing
from msgm.cli.main import main
from msgm.forgetting.methods import DEFAULT, METHODS, Method, erasediff, moderate, salun, standard
from msgm.likelihood import log_likelihood, variational_bound
from msgm.process.sde import DDPM
from msgm.processes import here, joined
from msgm.sampling import DPMSolverSDE, Heun
from msgm.training import loop
from msgm.training.loop import train, unlearn
from msgm.training.settings import TrainSettings, UnlearnSettings

NAMES = dict.fromkeys((DEFAULT, "deflect", "orthogonal", "siss"))
RUNS: dict[str, Method] = {name: METHODS[name]() for name in NAMES} | {
    "moderate": moderate(steps=20),  # prepares a classifier, and recalls
    "salun": salun(),  # prepares a mask
    "erasediff": erasediff(),  # draws noise of its own, and looks ahead
}
STEPS, BATCH = 4, 5
"""A batch that does not divide by two."""
KILLED = 3
AUDIT = Budget(
    images=6, samples=6, sampling_steps=4, checkpoints=(1, 2), shown=(1,), batch=4, draws=4, nll_steps=2, flow_steps=3,
    searched=2, rounds=2,
)  # fmt: skip


def library(out: Path, files: Path) -> None:
    """Each process does all of it; the first writes."""
    settings = UnlearnSettings(steps=STEPS, batch=BATCH)
    for name, method in RUNS.items():
        unlearn(tiny_model(), tiny_split(), method=method, settings=settings, run=quiet(out / name))
    trained = TrainSettings(steps=STEPS, batch=BATCH)
    train(tiny_model(), tiny_data(), method=standard(), settings=trained, run=quiet(out / "standard"))
    model, images = tiny_model(DDPM(steps=20)).eval(), tiny_data(10).rows()
    found = {
        "samples": Heun(model, steps=3).sample(9, seed=1, batch=3, start=2),
        "likelihoods": log_likelihood(model, images, steps=2, check=4, batch=3).nats,
        "bounds": variational_bound(model, images, steps=3, batch=5).bits_per_dim,
        "few samples": DPMSolverSDE(model, steps=3).sample(3, seed=1, batch=100),
        "few likelihoods": log_likelihood(model, images[:3], solver="dopri5").nats,
    }
    torch.save(found, out / f"found-{here().rank}.pt")


def commands(out: Path, files: Path) -> None:
    """Each needs what those before it wrote."""
    auditing.BUDGETS = {"small": AUDIT}
    made, data, judge = out / "made", f"--data {files / 'data'}", f"--judge {files / 'judge'}"
    for words in (
        f"unlearn {files / 'model'} --out {made} --steps 6 --batch 5 --method.steps 20 --select --select-every 3 "
        f"--select-n 8 --select-images 2 {judge} --forget label==1 {data}",
        f"sample {made} --out {out / 'samples'} --n 10 --batch 3 --sampler.steps 3",
        f"nll {made} --out {out / 'nll.json'} --n 3 --steps 1 {data}",
        f"evaluate {made} --out {out / 'evaluation'} {judge} --n 12 --sampler.steps 3 --nll-images 3 --nll-steps 1 "
        f"--nll-check 1 {data}",
        f"audit {made} --against {files / 'model'} --retrained {files / 'fresh'} --out {out / 'audit'} {judge} "
        f"--attacks relearn {data}" + " --workers 1" * (here().size == 1),
    ):
        main(words.split())


def killed(out: Path, files: Path) -> None:
    """The second process is killed in the middle of a step; the first goes on as far as it can."""
    follow = loop.follow

    def struck(*given: Tensor | float) -> None:
        if here().rank == 1 and len(done) == KILLED - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        done.append(None)
        follow(*given)  # type: ignore[arg-type]

    done: list[None] = []
    loop.follow = struck  # type: ignore[assignment]
    rest(out, files)


def rest(out: Path, files: Path) -> None:
    """A run, or the rest of it."""
    words = f"unlearn {files / 'model'} --out {out / 'killed'} --steps {2 * KILLED} --batch {BATCH} --resume"
    main(f"{words} --method.steps 20 --forget label==1 --data {files / 'data'}".split())


if __name__ == "__main__":
    torch.set_num_threads(1)
    with joined():
        for each in sys.argv[3:]:
            {"library": library, "commands": commands, "killed": killed, "rest": rest}[each](*map(Path, sys.argv[1:3]))
