"""Every command that writes, on models and data as small as can be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

import msgm
from msgm.data import Source
from msgm.experiments.paper import budgets as tables
from msgm.experiments.paper.budgets import AuditSettings, Draw, Kind
from msgm.experiments.toy import setup as toy
from msgm.metrics.judge_training import JudgeSettings, train_judge
from msgm.model.networks import UNetPreset
from msgm.process.sde import VESDE
from msgm.training.settings import TrainSettings, UnlearnSettings

RULE = "label == 1"


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command line, run inside a folder of its own; ``resume`` are the words that go on with it.

    ``most``: kills at writes, and signals at instants, of a command that takes long however small it is.
    """

    words: Sequence[str]
    resume: Sequence[str] = ("--resume",)
    out: str = "out"
    most: int = 1000


def commands(base: Path) -> Mapping[str, Command]:
    """Each by its name; {base} holds what `prepare` makes, {rule} is one argument."""

    def command(words: str, resume: bool = True) -> Command:
        every = f"{words} --out out".split()
        given = [word.format(base=base, rule=RULE) for word in every]
        return Command(words=given, resume=("--resume",) if resume else ())

    data, cpu = "--data {base}/data", "--device cpu"
    tune = f"--steps 4 --batch 2 --save-every 1 {data} {cpu}"
    look = f"-n 4 --sampler.steps 2 --nll-images 0 {data} {cpu}"
    judged = "{base}/model --forget {rule} --judge {base}/judge"
    both = "--method unseen --method redirect --seeds 1"
    seeds = "--method unseen --seeds 2 -n 4 --nll-images 0"
    return {
        "train": command(f"train --network small-16 {tune}"),
        "unlearn": command(f"unlearn {{base}}/model --forget {{rule}} --method unseen {tune}"),
        "train-judge": command(f"train-judge --epochs 1 --batch 4 --width 2 {data} {cpu}", False),
        "sample": command(f"sample {{base}}/model -n 5 --batch 2 --sampler.steps 2 {cpu}"),
        "nll": Command(
            words=f"nll {base}/model -n 2 --steps 1 --data {base}/data {cpu} --out out/x.json".split(), resume=()
        ),
        "inpaint": command(f"inpaint {{base}}/model --mask band -n 2 --sampler.steps 2 {data} {cpu}", False),
        "reconstruct": command(f"reconstruct {{base}}/model -n 2 --steps 2 {data} {cpu}", False),
        "evaluate": command(f"evaluate {judged} {look}", False),
        "convert": command("convert {base}/model", False),
        "sweep": command(f"sweep {judged} {both} --workers 1 {tune} {look}"),
        "sweep --workers": command(f"sweep {judged} {both} --workers 2 {tune} {look}"),
        "unlearn --seeds": command(f"unlearn {judged} {seeds} --workers 1 {tune}"),
        "audit": command(
            f"audit {{base}}/other --against {{base}}/model --retrained {{base}}/third --forget {{rule}} "
            f"--judge {{base}}/judge --attacks member,locate --workers 1 {data}"
        ),
        "demo": command("demo --steps 2 --batch 2 -n 4 --sampler.steps 2 --nll-images 0"),
        "reproduce toy": replace(command("reproduce toy --threads 1"), most=3),
        # Tables are gone on with by the same words.
        "reproduce table7": command(f"reproduce table7 --data {{base}}/digits {cpu} --workers 1", False),
    }


def prepare(base: Path) -> None:
    """Models, a judge, and pictures of two kinds (bright on the left, bright on the right) and of ten.

    The budgets of the experiments become as small as can be: their words name them, and no options.
    """
    _pictures(base / "data", (0, 1), 10, lambda pixels, label: pixels[:, 8 * label : 8 * label + 8])
    _pictures(base / "digits", range(10), 8, lambda pixels, label: pixels[label + 3])
    for seed, name in enumerate(("model", "other", "third")):
        torch.manual_seed(seed)
        network = UNetPreset(size=16, patch=4, channels=(8,), attention=(), head_dim=4, groups=4).build(1)
        model = msgm.ScoreModel(network, VESDE(), shape=(1, 16, 16), patch=4)
        model.record = {"data": {"name": str(base / "data")}}
        msgm.save(model, base / name)
    source = Source(str(base / "data"))
    settings = JudgeSettings(epochs=40, batch=10, width=4)
    train_judge(source.open("train"), source.open("test"), settings, progress=False).save(base / "judge")
    toy.BUDGETS["small"] = toy.Budget(
        steps=3, tuning=2, batch=32, seeds=1, study_seeds=1, test=20, nll_steps=2, samples=40
    )
    tables.BUDGETS["small"]["mnist"] = tables.Budget(
        image_size=16,
        network="small-16",
        kinds={
            "ve": Kind(
                prediction="edm",
                train=TrainSettings(steps=4, batch=4, warmup=1, save_every=1),
                tune=UnlearnSettings(steps=2, batch=4, warmup=1, save_every=1),
            ),
        },
        retrain=("unseen",),
        judge=JudgeSettings(epochs=6, batch=16, lr=0.01, width=8),
        audit=AuditSettings(
            draws=(Draw(sampler="heun", steps=2, n=6, batch=3),), nll_images=2, nll_steps=1, nll_check=2
        ),
    )


def _pictures(folder: Path, labels: Sequence[int], n: int, bright: Callable[[Tensor, int], Tensor]) -> None:
    """Noise of 16 x 16 pixels, as many of each label and split, with a part that is bright."""
    generator = torch.Generator().manual_seed(0)
    for split in ("train", "test"):
        for label in labels:
            (folder / split / f"{label}").mkdir(parents=True)
            for k in range(n):
                pixels = torch.randint(0, 60, (16, 16), generator=generator, dtype=torch.uint8)
                bright(pixels, label).add_(150)
                Image.fromarray(pixels.numpy()).save(folder / split / f"{label}" / f"{k}.png")
