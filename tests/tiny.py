"""The smallest things that the training loop takes: 8x8 images of two classes and a U-Net of a few weights."""

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from msgm.data import ForgetRequest, Images, Source, Split
from msgm.errors import Interrupted
from msgm.experiments.core.evaluate import EvaluateSettings, evaluate
from msgm.experiments.core.jobs import Task
from msgm.forgetting.methods import moderate
from msgm.formats import save
from msgm.metrics import quantities
from msgm.metrics.judge import Judge
from msgm.metrics.judge_training import JudgeSettings, train_judge
from msgm.metrics.subject import Subject
from msgm.model.networks import MLP
from msgm.model.precondition import Precondition
from msgm.model.score import ScoreModel
from msgm.process.sde import SDE, VESDE
from msgm.report.results import Result
from msgm.training import loop as training
from msgm.training.runs import RunSpec

FEW_STEPS = ["--method.steps", "4"]
"""Of the default recipe's classifier, which is trained before anything else."""
QUICK = moderate(steps=4)
"""The default recipe with such a classifier."""


def quiet(folder: Path | None = None, **options: Any) -> RunSpec:
    """A run on the CPU without a bar."""
    return RunSpec(**({"folder": folder, "device": "cpu", "progress": False} | options))


def tiny_data(n: int = 40, size: int = 8, seed: int = 0) -> Images:
    """Bright left halves (label 0) and bright right halves (label 1), with noise."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 60, (n, 1, size, size), generator=generator, dtype=torch.uint8)
    label = torch.arange(n) % 2
    images[label == 0, :, :, : size // 2] += 150
    images[label == 1, :, :, size // 2 :] += 150
    return Images.of(images, columns={"label": label}, name="halves")


def tiny_split(size: int = 8) -> Split:
    return ForgetRequest("label == 1").split(tiny_data(size=size))


def tiny_model(
    sde: SDE | None = None, *, seed: int = 0, dropout: float = 0.1, precondition: Precondition | None = None
) -> ScoreModel:
    """Space-to-depth and dropout, as in the models that are trained in earnest."""
    from diffusers import UNet2DModel

    torch.manual_seed(seed)
    network = UNet2DModel(
        sample_size=4,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(8,),
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        attention_head_dim=4,
        norm_num_groups=4,
        dropout=dropout,
    )
    return ScoreModel(network, sde or VESDE(), shape=(1, 8, 8), patch=2, precondition=precondition)


def tiny_files(root: Path) -> None:
    """``model``, a ``judge`` and ``data``, a folder of images of both splits."""
    from PIL import Image

    for seed, split in enumerate(("train", "test")):
        data = tiny_data(n=40, seed=seed)
        for index, (image, label) in enumerate(zip(data.rows(), data.labels.tolist(), strict=True)):
            folder = root / "data" / split / f"class{label}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[0].numpy()).save(folder / f"{index}.png")
    save(tiny_model(), root / "model")
    tiny_judge().save(root / "judge")


def tiny_task(root: Path, evaluation: EvaluateSettings) -> Task:
    """What runs on `tiny_files` have in common: label 1 is forgotten."""
    tiny_files(root)
    return Task(
        model=str(root / "model"), data=Source(str(root / "data")), request=ForgetRequest("label == 1"),
        judge=str(root / "judge"), evaluation=evaluation, command="msgm sweep",
    )  # fmt: skip


@cache
def tiny_judge() -> Judge:
    """One that tells the halves apart."""
    settings = JudgeSettings(epochs=20, batch=10, width=4)
    return train_judge(tiny_data(), tiny_data(seed=1), settings, progress=False)


VECTORS = torch.randn(48, 2, generator=torch.Generator().manual_seed(0))
PLANE = ForgetRequest("label == 1").split(
    Images.of(VECTORS, columns={"label": (VECTORS[:, 0] > 0.7).long()}, name="plane")
)
"""Points of the plane, those far to the right to be forgotten."""


def plane_model(sde: SDE, seed: int = 0, precondition: Precondition | None = None) -> ScoreModel:
    torch.manual_seed(seed)
    return ScoreModel(MLP(dim=2, width=16, depth=2), sde, shape=(2,), precondition=precondition)


def sampled_only(model: ScoreModel, *, settings: EvaluateSettings, **options: Any) -> tuple[Result, Subject]:
    """`evaluate` without its likelihood, which takes long: the samples' mean stands for that of the retained."""
    row, subject = evaluate(model, settings=replace(settings, nll_images=0), **options)
    nll = quantities.NLL["retain"].of(float(subject.pixels.float().mean()), stderr=0.1)
    return replace(row, measured={**row.measured, nll.name: nll}), subject


def forked(action: Callable[[], object], *, step: int, number: int) -> int:
    """Run in a child that sends itself a signal in the middle of a step; its exit status, minus a fatal signal."""
    child = os.fork()
    if child == 0:
        status = 99
        try:
            signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup, these tests' too perhaps, has it ignored
            follow, done = training.follow, []

            def struck(*arguments: Any) -> None:
                done.append(None)
                if len(done) == step:
                    os.kill(os.getpid(), number)
                follow(*arguments)

            training.follow = struck
            action()
            status = 0
        except SystemExit as end:
            status = int(end.code or 0)
        except Interrupted as stop:
            status = 128 + stop.number
        finally:
            sys.stderr.flush()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
