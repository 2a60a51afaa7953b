"""The command that attacks: audit."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from ..attacks.table import ATTACKS
from ..attacks.target import BUDGETS
from ..data import parts
from ..errors import UserError
from ..experiments.audit.main import MADE
from ..experiments.audit.main import audit as attack
from ..experiments.audit.outcome import MODEL, PARENT
from ..experiments.core.engines import Engine, available
from ..experiments.core.pool import cores
from ..folders import ready
from ..formats import Reading
from ..formats.ledger import sealed
from ..formats.native import EMBEDDED, RECORD, read_record
from ..metrics.judge import Judge
from ..metrics.shares import rules_of
from ..model.score import ScoreModel
from ..processes import here
from ..storage import write_json
from .asking import Forget
from .options import Data, images_of, meant
from .reading import read_models


def audit(
    model: str,
    *,
    against: str,
    out: Path,
    command: str,
    retrained: str | None = None,
    budget: Literal["small", "full"] = "small",
    attacks: str | None = None,
    request: Forget = Forget(),
    judge: str = EMBEDDED,
    guide: str | None = None,
    data: Data = Data(),
    reading: Reading = Reading(),
    other: str | None = None,
    show_recovered: bool = False,
    seed: int = 0,
    workers: int | None = None,
    engine: Engine = "local",
    reuse: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> None:
    """Attack a model with the weights in hand, beside its parent and retrained models: a verdict for each attack.

    Writes audit.html, which answers first, and audit.json with every number and the hashes of models, data and judges;
    the model's own record then names the audit. A model has forgotten as far as it is like one that never saw the
    forget set, in both directions: the rule is on the page.

    Args:
        model: the unlearned model's folder.
        against: its parent: a model folder, or demo.
        out: folder for all of it; each attack on each model is stored as it ends.
        retrained: models that never saw the forget set, with commas between; without one the parent is fine-tuned on
            what is retained, as a stand-in.
        budget: small (minutes for a small model) or full.
        attacks: those to run, with commas between; by default all.
        request: What was to be forgotten; by default the model's own request
        judge: a judge folder, or demo for the MNIST judge in the package.
        guide: another judge of the same classes, which leads samples to the forget classes; by default one is trained,
            briefly.
        data: the images; by default those of the model's record.
        other: images that have nothing to do with the data, to fine-tune on.
        show_recovered: keep pictures of what the attacks bring back; without it only numbers are written.
        seed: of all that is random.
        workers: processes of one thread each; by default one for each core.
        engine: where the attacks are done: processes of this machine, or ray or slurm.
        reuse: folder of another audit, of another child of the same parent: what it measured of the parent and the
            retrained models is taken over where all else is the same.
        resume: go on with an audit that was interrupted.
        overwrite: replace what is in the output folder.
    """
    if (workers is not None or engine != "local") and here().size > 1:
        raise UserError("--workers and --engine start processes, and there are several already; leave them out")
    available(engine)
    ready(out, MADE, resume=resume, overwrite=overwrite)
    named = [name for name in (retrained or "").split(",") if name]
    loaded = read_models([against, *named, model], reading)
    source = loaded[model]
    images = data.of(source)
    asked = request.of(source, images)
    if asked is None:
        raise UserError(f"the record of {model} holds no request; say what was to be forgotten with --forget RULE")
    if asked.lists:
        rules = rules_of(asked)
        rule = f'"{" or ".join(each.words for each in parts(rules))}"' if rules is not None else "RULE"
        raise UserError(
            f"an audit asks for the forgotten among test images, and {asked} names training images; "
            f"ask by a rule alone: --forget {rule}"
        )
    found = attack(
        source,
        against=loaded[against],
        split=asked.split(meant(source, images_of(source, images, "train"), asked)),
        held=asked.split(images_of(source, images, "test")),
        judge=Judge.load(judge),
        out=out,
        retrained=_named({name: loaded[name] for name in named}),
        guide=Judge.load(guide) if guide else None,
        other=images_of(source, replace(data, name=other).source, "train") if other else None,
        budget=replace(BUDGETS[budget], seed=seed),
        name=Path(model).resolve().name,
        attacks=attacks.split(",") if attacks else tuple(ATTACKS),
        workers=workers or cores(),
        engine=engine,
        reuse=reuse,
        resume=resume,
        overwrite=overwrite,
        show_recovered=show_recovered,
        command=command,
    )
    record = Path(model) / RECORD
    if record.is_file() and here().first:
        digest = hashlib.sha256((out / "audit.json").read_bytes()).hexdigest()
        told = {"file": str(out / "audit.json"), "sha256": digest, "verdict": found.sentence}
        write_json(record, sealed({**read_record(record), "audit": told}))
    print(found.sentence)
    print(f"saved {out / 'audit.html'}")


def _named(models: Mapping[str, ScoreModel]) -> dict[str, ScoreModel]:
    """Models by the names of their folders, each told from the others and from the audit's own two."""
    found: dict[str, ScoreModel] = {}
    for folder, model in models.items():
        name = Path(folder).resolve().name
        while name in (MODEL, PARENT, *found):
            name += "-again"
        found[name] = model
    return found
