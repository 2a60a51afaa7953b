"""What an adversary with the weights in hand gets out of an unlearned model, beside its parent and a retrained one."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ...attacks import ask
from ...attacks.table import ATTACKS
from ...attacks.target import SMALL, Attack, Budget, Target
from ...data import Images, Split
from ...errors import UserError
from ...folders import Making, opened
from ...forgetting.methods import unseen
from ...formats import load
from ...formats.networks import factory_of
from ...formats.tensors import weights_sha256
from ...metrics.judge import Judge
from ...metrics.judge_training import JudgeSettings, train_judge
from ...metrics.measured import Measured
from ...metrics.worth import Worth, worth_for
from ...model.score import ScoreModel
from ...processes import here
from ...progress import note
from ...report.page import commit
from ...storage import write_json
from ...training.loop import unlearn
from ...training.runs import RunSpec, completed, disk
from ...training.settings import UnlearnSettings
from ..core.engines import Engine, available
from ..core.evaluate import check
from .attacking import PIECES, SHOWN, attack_all, numbers
from .card import write_card
from .outcome import MODEL, PARENT, Audit, Outcome
from .verdict import decide

STAND_IN = "unseen"
FOLDERS = (PIECES, "models", "guide", "recovered")
MADE = Making(kind="audit", names=(*FOLDERS, "audit.json", "audit.html"))
GUIDE_SEED = 101
UNGUIDED = "the guide that was trained cannot tell what is to be forgotten; name one"
KEPT = 2000
"""Images of each set that the attacks draw from at most: they travel to other processes."""


def audit(
    model: ScoreModel,
    *,
    against: ScoreModel,
    split: Split,
    held: Split,
    judge: Judge,
    out: Path,
    retrained: Mapping[str, ScoreModel] | None = None,
    guide: Judge | None = None,
    other: Images | None = None,
    budget: Budget = SMALL,
    name: str = MODEL,
    attacks: Sequence[str] = tuple(ATTACKS),
    stand_in: UnlearnSettings | None = None,
    workers: int = 2,
    engine: Engine = "local",
    resume: bool = False,
    overwrite: bool = False,
    reuse: Path | None = None,
    show_recovered: bool = False,
    command: str = "",
    progress: bool = True,
) -> Audit:
    """Attack a model, its parent (``against``) and retrained models alike; write audit.json and audit.html.

    Args:
        model: the unlearned model.
        against: the model that it was made from.
        split: what the parent was trained on, in two.
        held: other images, in two, by the same rule.
        judge: says what comes back.
        out: folder for all of it; each piece is stored as it ends.
        retrained: models that never saw the forget set, by name. Without one the parent is fine-tuned on the retained
            images (`unseen`, by ``stand_in``): the cheapest honest stand-in, and named as such.
        guide: another judge of the same classes, for guidance; by default one is trained, briefly, and where it cannot
            tell the forgotten there is no verdict about guidance.
        other: images that have nothing to do with the data, for revival.
        budget: how much work.
        name: of the model, on the card.
        attacks: those to run; ask is always among them.
        stand_in: settings of the stand-in.
        workers: processes of one thread each; where this is one of several already, these do each attack together.
        engine: see `run_all`.
        resume: go on with an audit that was stopped.
        overwrite: replace what is in the folder.
        reuse: another audit's folder: what the same attacks brought back there from the same parent and retrained
            models, by the same data, judges and budget, is not done again.
        show_recovered: keep pictures of what the attacks bring back from the model. Without it numbers alone leave.
        command: for the record.
        progress: show bars.

    A parent that is not the one of the model's record is noted. Raises UserError, before any work: shapes, rules and
    judges that do not fit together, a judge or guide that cannot tell what is to be forgotten, a guide that is the
    judge, images that lack classes to train one with, a retrained model that is the model or its parent, an attack
    that there is none of, a folder to reuse that is no audit's or the one to write.
    """
    if unknown := set(attacks) - set(ATTACKS):
        raise UserError(f"no attack {', '.join(sorted(unknown))}; known: {', '.join(ATTACKS)}")
    if reuse is not None and reuse.resolve() == out.resolve():
        raise UserError(f"{out} is to be written and reused; write into another folder, or resume", option="reuse")
    if reuse is not None and not (reuse / PIECES).is_dir():
        raise UserError(f"{reuse} is not the folder of an audit: nothing was measured there")
    available(engine)
    forgotten, _ = check(model, judge, split.request, held.whole)
    check(against, judge, split.request, held.whole)
    worth = worth_for(judge, split.request, held.whole)
    worth.check()
    lacking = set(judge.classes) - set(judge.labels(split.whole).tolist())
    if guide is None and "guide" in attacks and lacking:
        raise UserError(
            f"{split.whole.name} has no images of the judge's classes {', '.join(map(str, sorted(lacking)))} to train "
            "a guide with; name one, or leave that attack out",
            option="guide",
        )
    guided = _guide_worth(guide, judge, split, held) if guide is not None else None
    if guided is not None:
        guided.check("guide")
    hashes = {
        key: weights_sha256(each.network) for key, each in {MODEL: model, PARENT: against, **(retrained or {})}.items()
    }
    notes = _lineage(model, hashes)
    for each in notes if here().first else ():
        note(each)
    identity = {
        **split.request.to_dict(), "data": split.digest, "held": held.digest, "judge": worth.sha256,
        "budget": asdict(budget), "show": show_recovered, "other": other.digest if other is not None else None,
        "guide": guided.sha256 if guided is not None else None, "models": hashes,
    }  # fmt: skip
    size = disk(model, (stand_in or UnlearnSettings()).steps) + 2 * SHOWN * len(attacks) * math.prod(model.shape)
    with opened(out, replace(MADE, identity=identity, size=size), resume=resume, overwrite=overwrite) as place:
        if not place.resumed and here().first:
            place.clear()
            for left in FOLDERS:
                shutil.rmtree(out / left, ignore_errors=True)
        others = dict(retrained or {})
        alone = not others
        if alone:
            others[STAND_IN] = _stand_in(against, split, out / "models" / STAND_IN, stand_in, command, progress)
        if guide is None and "guide" in attacks:
            guide = _guide(split, held, judge, out / "guide", progress)
            guided = _guide_worth(guide, judge, split, held)
        unguided = {} if guided is None or guided.tells else {"unguided": UNGUIDED}
        if unguided:
            guide = None
        subjects = {MODEL: model, PARENT: against, **others}
        facts = {
            **split.request.to_dict(), "data": split.digest, "held": held.digest, "judge": worth.sha256,
            "guide": weights_sha256(guide) if guide is not None else None,
            "other": other.digest if other is not None else None,
        }  # fmt: skip
        target = Target(
            parent=against, train=_compact(split, judge, budget.seed),
            held=_compact(held, judge, budget.seed), column=judge.column,
            judge=judge, forgotten=frozenset(forgotten), kept=frozenset(judge.classes) - forgotten, guide=guide,
            other=other, parent_share=0.0, budget=budget, **unguided,
        )  # fmt: skip
        how: dict[str, Any] = {
            "show": MODEL if show_recovered else None, "workers": workers, "engine": engine, "resume": resume,
            "reuse": reuse, "progress": progress,
        }  # fmt: skip
        found = attack_all(["ask"], subjects, target, facts, out, **how)
        share = numbers(found["ask"][PARENT])[ask.UR.name].value
        target = replace(target, parent_share=share or 0.0)
        chosen = [name for name in ATTACKS if name in attacks and name != "ask"]
        found |= attack_all(chosen, subjects, target, facts, out, **how)
        about = {
            "command": command,
            "commit": commit(),
            "seed": budget.seed,
            "method": model.record.get("method", {}).get("name", "standard"),
            "weights_sha256": {subject: weights_sha256(each.network) for subject, each in subjects.items()},
            "facts": facts,
            "judge": {**worth.to_dict(), "text": worth.text()},
            "guide": {**guided.to_dict(), "text": guided.text("guide")} if guided is not None else None,
            "notes": notes,
            "budget": asdict(budget),
        }
        outcomes = [_outcome(ATTACKS[name], pieces, list(others), alone) for name, pieces in found.items()]
        result = Audit(name=name, outcomes=outcomes, retrained=list(others), stand_in=alone, about=about)
        write_json(out / "audit.json", result.to_dict())
        write_card(out / "audit.html", result.to_dict())
    return result


def _outcome(attack: Attack, pieces: Mapping[str, Mapping[str, Any]], retrained: Sequence[str], alone: bool) -> Outcome:
    found, decisions = {subject: numbers(piece) for subject, piece in pieces.items()}, {}
    for key in (key for key, each in found[MODEL].items() if not each.detail):
        known = attack.known.get(key)
        beside = [found[subject][key] for subject in retrained] if known is None else [_exactly(key, known)]
        decisions[key] = decide(found[MODEL][key], beside, stand_in=alone)
    spent = sum(float(piece["seconds"]) for piece in pieces.values())
    return Outcome(attack=attack, numbers=found, decisions=decisions, seconds=round(spent, 1))


def _exactly(name: str, value: float) -> Measured:
    return Measured(name=name, value=value, low=value, high=value)


def _compact(split: Split, judge: Judge, seed: int) -> Split:
    """At most `KEPT` images of each set, at random, and no others behind them, labelled as the judge labels."""
    generator = torch.Generator().manual_seed(seed)
    parts = [p.select(torch.randperm(len(p), generator=generator)[:KEPT]) for p in (split.retain, split.forget)]
    both = parts[0].join(parts[1])
    columns = {**both.columns, judge.column: judge.labels(both)}
    whole, count = Images.of(both.rows(), columns=columns, name=both.name), len(parts[0])
    return Split(
        whole=whole, retain=whole.select(slice(count)), forget=whole.select(slice(count, None)), request=split.request
    )


def _stand_in(
    parent: ScoreModel, split: Split, out: Path, settings: UnlearnSettings | None, command: str, progress: bool
) -> ScoreModel:
    """The parent fine-tuned on what is retained; read where it is there already."""
    if here().told(partial(completed, out)):
        return load(out, module_factory=factory_of(parent.network))
    return unlearn(
        parent, split, method=unseen(), settings=settings or UnlearnSettings(),
        run=RunSpec(folder=out, resume=True, overwrite=True, device="cpu", progress=progress, command=command),
    )  # fmt: skip


def _classes(judge: Judge) -> list[tuple[int, str]]:
    """The judge's classes with their names, in order."""
    return sorted(zip(judge.classes, judge.names, strict=True))


def _labelled(images: Images, judge: Judge) -> Images:
    """Those of the classes that the judge knows, labelled as it labels."""
    labels = judge.labels(images)
    known = torch.isin(labels, torch.tensor(judge.classes))
    columns = {**images.columns, judge.column: labels}
    return replace(images.select(known), columns={name: values[known] for name, values in columns.items()})


def _guide_worth(guide: Judge, judge: Judge, split: Split, held: Split) -> Worth:
    """What a guide is worth. UserError for the judge itself, and for one of other images or classes than its."""

    def about(each: Judge) -> str:
        classes = ", ".join(f"{label} ({name})" for label, name in _classes(each))
        return f"images of shape {each.shape} and {each.column} {classes}"

    if about(guide) != about(judge):
        raise UserError(
            f"the guide knows {about(guide)}, the judge {about(judge)}; name a guide that was trained on such data",
            option="guide",
        )
    found = worth_for(guide, split.request, held.whole)
    if found.sha256 == weights_sha256(judge):
        raise UserError(
            "the guide is the judge, which would find what it has led to; name another, or leave it out", option="guide"
        )
    return found


def _lineage(model: ScoreModel, hashes: Mapping[str, str]) -> list[str]:
    """What is to be said of the parent; UserError for a retrained model that is the model or its parent."""
    for name in hashes.keys() - {MODEL, PARENT}:
        same = [subject for subject in (MODEL, PARENT) if hashes[subject] == hashes[name]]
        if same:
            raise UserError(
                f"retrained model {name} has the weights of the {same[0]}; name one that never saw the forget set, or "
                "leave it out",
                option="retrained",
            )
    recorded = (model.record.get("parent") or {}).get("weights_sha256", hashes[PARENT])
    if hashes[PARENT] in (recorded, hashes[MODEL]):
        return []
    return [
        f"The parent ({hashes[PARENT][:12]}) is not the model that this one was made from by its record "
        f"({recorded[:12]}): all that is said beside the parent holds of another model."
    ]


def _guide(split: Split, held: Split, judge: Judge, out: Path, progress: bool) -> Judge:
    """Another judge of the same classes, trained briefly from another seed; read where it is there already."""
    if here().told((out / "config.json").exists):
        return Judge.load(out)
    settings, names = JudgeSettings(epochs=3, seed=GUIDE_SEED, width=8), [name for _, name in _classes(judge)]
    train, test = (_labelled(each.whole, judge) for each in (split, held))
    guide = train_judge(train, test, settings, column=judge.column, names=names, progress=progress)
    guide.save(out)
    return guide
