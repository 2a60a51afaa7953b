"""What hostile inputs are made from: whole models, a judge, pictures and runs; and how they are changed."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image

import msgm
from apart import run
from hostile_files import (
    Case,
    Code,
    Words,
)
from msgm.metrics.judge import Judge
from msgm.model.networks import UNetPreset
from msgm.model.precondition import Noise
from msgm.process.sde import DDPM, VESDE

RULE = "label in [3, 7]"
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
DRAW = ["-n", "1", "--sampler", "dpm++", "--sampler.steps", "2", "--device", "cpu", "--batch", "1"]
LOOK = ["-n", "2", "--sampler.steps", "2", "--nll-images", "0", "--device", "cpu"]
TUNE = ["--forget", RULE, "--steps", "3", "--batch", "2", "--save-every", "1", "--method", "unseen", "--device", "cpu"]


def prepare(base: Path) -> None:
    """What hostile files are made from: models, a judge, pictures, pictures that were drawn, a run that was stopped."""
    torch.manual_seed(0)
    network = UNetPreset(size=28, patch=4, channels=(8,), attention=(), head_dim=4, groups=4)
    for name, sde in (("model", None), ("theirs", DDPM())):
        of = {"sde": sde, "precondition": Noise()} if sde else {"sde": VESDE()}
        model = msgm.ScoreModel(network.build(1), of.pop("sde"), shape=(1, 28, 28), patch=4, **of)
        model.record = {"data": {"name": "demo"}, "request": {"rule": RULE}, "kind": "unlearned", "command": "msgm x"}
        msgm.save(model, base / name)
    for name in ("score.json", "moderation.json"):
        (base / "theirs" / name).unlink()
    _foreign(base / "theirs")
    Judge.load("demo").save(base / "judge")
    for split in ("train", "test"):
        for label in "ab":
            folder = base / "pictures" / split / label
            folder.mkdir(parents=True)
            for k in range(3):
                Image.new("L", (28, 28), 40 * k + 9 * ord(label) % 50).save(folder / f"{k}.png")
    run(lambda: msgm_main(["sample", str(base / "model"), "--out", str(base / "drawn"), *DRAW]), base)
    ended = run(lambda: _stopped(base), base)
    assert (base / "begun" / "resume.safetensors").exists(), ended.err
    for left in ("out.txt", "err.txt"):
        (base / left).unlink()


def _foreign(folder: Path) -> None:
    """A pipeline of diffusers' own, 28 pixels a side."""
    from diffusers import DDPMScheduler, UNet2DModel

    shutil.rmtree(folder)
    UNet2DModel(
        sample_size=28,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(8,),
        norm_num_groups=4,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        attention_head_dim=4,
    ).save_pretrained(folder / "unet")
    DDPMScheduler().save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "DDPMPipeline",
        "unet": ["diffusers", "UNet2DModel"],
        "scheduler": ["diffusers", "DDPMScheduler"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))


def msgm_main(words: Words) -> None:
    """The command line."""
    from msgm.cli.main import main

    main(words)


def _stopped(base: Path) -> None:
    from msgm.training import loop

    follow = loop.follow

    def struck(*given: Any) -> None:
        follow(*given)
        os.kill(os.getpid(), signal.SIGTERM)

    loop.follow = struck
    msgm_main(["unlearn", str(base / "model"), "--out", str(base / "begun"), *TUNE])


def sampled(folder: Path) -> Words:
    return ["sample", str(folder / "in"), "--out", str(folder / "out"), *DRAW]


def changed_folder(
    kind: str, base: Path, words: Callable[[Path], Words], changes: dict[str, Callable[[Path], object]]
) -> Iterator[Case]:
    """A copy of a folder with something done to it."""
    for name, change in changes.items():

        def make(folder: Path, change: Callable[[Path], object] = change) -> Words:
            shutil.copytree(base, folder / "in", symlinks=True)
            change(folder / "in")
            return words(folder)

        yield Case(kind=kind, name=name, words=make)


def changed_json(path: Path, changed: dict[str, Any]) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def pickled(folder: Path, name: str) -> Path:
    torch.save({"state_dict": Code(folder / "pwned")}, folder / name)
    return folder / name


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def one_file(folder: Path, name: str, content: bytes) -> Words:
    return trained_on(folder, name, lambda path: path.write_bytes(content))


def trained_on(folder: Path, name: str, make: Callable[[Path], object], of: str | None = None) -> Words:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    make(folder / name)
    return [
        "train",
        "--data",
        str(folder / (of or name)),
        "--out",
        str(folder / "out"),
        "--steps",
        "1",
        "--batch",
        "2",
        "--device",
        "cpu",
    ]


def read_state(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load

    return load((folder / "resume.safetensors").read_bytes())


def change_state(folder: Path, replace: bool = False, **changed: torch.Tensor) -> None:
    from safetensors.torch import save

    (folder / "resume.safetensors").write_bytes(save({**({} if replace else read_state(folder)), **changed}))
