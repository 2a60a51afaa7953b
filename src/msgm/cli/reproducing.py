"""The command that makes an experiment of the paper again: reproduce."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from ..data import Source
from ..errors import UserError
from ..experiments.core.engines import Engine, available

Experiment = Literal[
    "toy", "t-shirt", "table2-mnist", "table7", "figure3", "figure4", "figure7", "table3-mnist", "table4-mnist",
    "mnist", "table2-cifar10", "table5", "table6", "table3-cifar10", "table4-cifar10", "cifar10", "table2-celeba",
    "table3-celeba", "celeba", "table2-stl10", "table2-airplane", "all",
]  # fmt: skip


def reproduce(
    experiment: Experiment,
    *,
    out: Path,
    command: str,
    budget: Literal["small", "gpu", "paper"] = "small",
    data: str | None = None,
    image: Path | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    minutes: float | None = None,
    seeds: int | None = None,
    seed: int = 0,
    threads: int | None = None,
    workers: int | None = None,
    engine: Engine = "local",
    resume: bool = False,
    overwrite: bool = False,
) -> None:
    """Make an experiment of the paper again: its table, its figures, a report.

    toy: Table 1, Figures 1 and 2, with the exact answer beside every number. t-shirt: the protocol for single images
    (SISS, ReTrack): the digits model of the package learns one image by heart, and forgets it. The others train
    networks on images: the rows of Table 2 that a data set fills (table2-airplane puts CIFAR-10's airplanes in the
    place of STL-10's), Tables 3 to 7, Figures 3 to 7; mnist, cifar10 and celeba are all that is about one data set,
    and share their runs, as single ones do that share the folder. all: everything but toy and t-shirt, each data set in
    a folder of its own.

    Args:
        experiment: which one.
        out: folder for all of it; tables that are begun there are gone on with.
        budget: small is made for a laptop; gpu for a GPU (tables only); paper is as the paper.
        image: the one image of t-shirt, 28 x 28 pixels.
        data: folder of the images (tables only); for all, the one that holds mnist, cifar10, celeba and stl10.
        device: where the tables' networks are computed.
        minutes: of the tables, begin no further piece after so many, and save a training's state.
        seeds: runs of each objective of the toy (5 in the small budget), of each recipe of t-shirt (1), of each
            fine-tuning in the tables.
        seed: of everything random in the toy.
        threads: for the toy, processes of one thread each, by default one for each core; for the tables, CPU threads.
        workers: of the tables, processes of one thread each; by default one for each core, and one on a GPU.
        engine: of the tables, where pieces are done: processes of this machine, or ray or slurm.
        resume: go on with a toy or t-shirt that was stopped.
        overwrite: replace what is in the output folder of toy or t-shirt.
    """
    if (image is None) == (experiment == "t-shirt"):
        raise UserError("--image is the picture that t-shirt is about, 28 x 28 pixels, and of nothing else")
    if engine != "local" and experiment in ("toy", "t-shirt"):
        raise UserError(f"{experiment} is done on one machine; leave out --engine")
    if experiment == "t-shirt":
        _single(out, command, image, budget, seeds, workers, resume, overwrite)
        return
    if experiment != "toy":
        _tables(experiment, out, command, budget, data, device, minutes, seeds, threads, workers, engine)
        return
    if workers is not None:
        raise UserError("the toy takes --threads, its processes; leave out --workers")
    if budget == "gpu":
        raise UserError("the toy has no budget gpu; choose small or paper")
    from ..experiments.core.pool import cores
    from ..experiments.toy import reproduce as toy
    from ..experiments.toy.setup import BUDGETS
    from .options import hardware

    workers = cores() if threads is None else threads
    if workers < 1:
        raise UserError(f"--threads must be 1 or more; got {workers}")
    hardware(1)  # This process is one of them where there are no others.
    chosen = BUDGETS[budget]
    if seeds is not None:
        if not 1 <= seeds <= 1000:
            raise UserError(f"--seeds must be 1 or more, and at most 1000; got {seeds}")
        chosen = replace(chosen, seeds=seeds, study_seeds=min(seeds, chosen.study_seeds))
    results = toy(out, budget=chosen, seed=seed, workers=workers, command=command, resume=resume, overwrite=overwrite)
    for claim in results["claims"]:
        print(f"{'yes' if claim['holds'] else 'NO ':>3}  {claim['claim']}: {claim['evidence']}")
    print(f"look at {out / 'report.html'}")


def _single(
    out: Path,
    command: str,
    image: Path | None,
    budget: str,
    seeds: int | None,
    workers: int | None,
    resume: bool,
    overwrite: bool,
) -> None:
    from ..experiments.core.pool import cores
    from ..experiments.memorised.main import Budget
    from ..experiments.memorised.main import reproduce as make
    from .options import hardware, show

    assert image is not None
    if budget != "small":
        raise UserError("t-shirt has one budget, small")
    if seeds is not None and not 1 <= seeds <= 1000:
        raise UserError(f"--seeds must be 1 or more, and at most 1000; got {seeds}")
    hardware(1)
    show(
        make(
            out, image, budget=Budget(seeds=seeds or 1), workers=workers or cores(), command=command, resume=resume,
            overwrite=overwrite,
        )
    )  # fmt: skip
    print(f"look at {out / 'report.html'}")


def _tables(
    name: str,
    out: Path,
    command: str,
    budget: str,
    data: str | None,
    device: str,
    minutes: float | None,
    seeds: int | None,
    threads: int | None,
    workers: int | None,
    engine: Engine,
) -> None:
    from ..experiments.core.pool import cores
    from ..experiments.paper.budgets import BUDGETS
    from ..experiments.paper.main import reproduce as make
    from ..experiments.paper.tables import GROUPS, TABLES
    from .options import hardware

    if data is None:
        raise UserError(f"{name} needs the folder of its images; give it with --data")
    if seeds is not None and not 1 <= seeds <= 1000:
        raise UserError(f"--seeds must be 1 or more, and at most 1000; got {seeds}")
    if workers is not None and workers < 1:
        raise UserError(f"--workers must be 1 or more; got {workers}")
    if workers is not None and threads is not None and workers > 1:
        raise UserError("each of several --workers has one thread; leave out --threads")
    available(engine)
    number = workers or 1
    if hardware(threads, device) == "cpu" and threads is None:
        number = workers or cores()
        hardware(1, device)
    done = True
    for part, folder, images in _parts(name, out, data):
        names = GROUPS.get(part, (part,))
        request = TABLES[names[0]].request
        chosen = BUDGETS[budget][request.data]
        chosen = chosen if seeds is None else replace(chosen, seeds=seeds)
        done &= make(
            names, out=folder, data=Source(images, size=chosen.image_size), budget=chosen, device=device,
            workers=number, engine=engine, minutes=minutes, command=command,
            say=lambda line: print(line, flush=True),
        )  # fmt: skip
    print(f"{'all is done' if done else 'not all is done; the same command goes on'}: {out}")


def _parts(name: str, out: Path, data: str) -> list[tuple[str, Path, str]]:
    """What ``name`` means: an experiment, its folder and its images, once or several times."""
    if name != "all":
        return [(name, out, data)]
    root = Path(data)
    stl = ("table2-stl10", "stl10") if (root / "stl10").is_dir() else ("table2-airplane", "cifar10")
    wanted = (("mnist", "mnist"), ("cifar10", "cifar10"), ("celeba", "celeba"), stl)
    if missing := dict.fromkeys(folder for _, folder in wanted if not (root / folder).is_dir()):
        raise UserError(f"{data} has no folder {', '.join(missing)}; all needs mnist, cifar10 and celeba")
    return [(part, out / part, str(root / folder)) for part, folder in wanted]
