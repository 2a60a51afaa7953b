"""The command that makes an experiment of the paper again: reproduce."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from ..errors import UserError


def reproduce(
    experiment: Literal["toy", "table2-cifar10", "table5", "table6", "cifar10"],
    *,
    out: Path,
    command: str,
    budget: Literal["small", "gpu", "paper"] = "small",
    data: str | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    minutes: float | None = None,
    seeds: int | None = None,
    seed: int = 0,
    threads: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> None:
    """Make an experiment of the paper again: its table, its figures, a report.

    toy: Table 1, Figures 1 and 2, with the exact answer beside every number. table2-cifar10, table5, table6: the rows
    of these tables that CIFAR-10 fills, or all three by cifar10; they share their runs if they share the folder.

    Args:
        experiment: which one.
        out: folder for all of it; a table that is begun there is gone on with.
        budget: small is made for a laptop; gpu for half an hour of a GPU (tables only); paper is as the paper.
        data: folder of CIFAR-10 (tables only).
        device: where the tables' networks are computed.
        minutes: of the tables, begin no further piece after so many, and save a training's state.
        seeds: runs of each objective of the toy (5 in the small budget), of each fine-tuning in the tables.
        seed: of everything random in the toy.
        threads: for the toy, processes of one thread each, by default one for each core; for the tables, CPU threads.
        resume: go on with a toy that was stopped.
        overwrite: replace what is in the output folder of the toy.
    """
    if experiment != "toy":
        _tables(experiment, out, command, budget, data, device, minutes, seeds, threads)
        return
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
        if seeds < 1:
            raise UserError(f"--seeds must be 1 or more; got {seeds}")
        chosen = replace(chosen, seeds=seeds, study_seeds=min(seeds, chosen.study_seeds))
    results = toy(out, budget=chosen, seed=seed, workers=workers, command=command, resume=resume, overwrite=overwrite)
    for claim in results["claims"]:
        print(f"{'yes' if claim['holds'] else 'NO ':>3}  {claim['claim']}: {claim['evidence']}")
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
) -> None:
    from ..experiments.paper.budgets import BUDGETS
    from ..experiments.paper.main import reproduce as make
    from ..experiments.paper.tables import TABLES
    from .options import hardware

    if data is None:
        raise UserError(f"{name} needs the folder of its images; give it with --data")
    hardware(threads)
    chosen = BUDGETS[budget] if seeds is None else replace(BUDGETS[budget], seeds=seeds)
    names = list(TABLES) if name == "cifar10" else [name]
    done = make(
        names, out=out, data=data, budget=chosen, device=device, minutes=minutes, command=command,
        say=lambda line: print(line, flush=True),
    )  # fmt: skip
    print(f"{'all is done' if done else 'not all is done; the same command goes on'}: {out}")
