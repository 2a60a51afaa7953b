"""The command that makes an experiment of the paper again: reproduce."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from ..errors import UserError


def reproduce(
    experiment: Literal["toy"],
    *,
    out: Path,
    command: str,
    budget: Literal["small", "paper"] = "small",
    seeds: int | None = None,
    seed: int = 0,
    threads: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> None:
    """Make an experiment of the paper again: its table, its figures, a report.

    toy: Table 1, Figures 1 and 2, with the exact answer beside every number.

    Args:
        experiment: which one; toy.
        out: folder for all of it; results.json, report.html and figures/ are the result.
        budget: small is made for a laptop; paper trains longer.
        seeds: runs of each objective (5 in the small budget).
        seed: of everything random.
        threads: processes of one thread each; by default one for each core.
        resume: go on with an experiment that was stopped.
        overwrite: replace what is in the output folder.
    """
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
