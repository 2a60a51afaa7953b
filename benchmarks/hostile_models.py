"""Hostile models, pipelines, networks, weights and judges."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from hostile_base import LOOK, RULE, WEIGHTS, changed_folder, changed_json, flip, pickled, sampled
from hostile_files import (
    ODD,
    Case,
    Words,
    headers,
    judge_of,
    mutations,
    network_file,
    odd,
    rewritten,
)


def models(base: Path, each: int, seed: int) -> Iterator[Case]:
    ours, theirs = base / "model", base / "theirs"
    for file, seal in (("score.json", False), ("unet/config.json", False), ("moderation.json", True)):
        yield from mutations("entries of a model", ours, file, sampled, each=each, seed=seed, seal=seal)
    for file in ("unet/config.json", "scheduler/scheduler_config.json", "model_index.json"):
        yield from mutations("entries of a pipeline", theirs, file, sampled, each=each, seed=seed)
    for name in ("score.json", "moderation.json", "unet/config.json", WEIGHTS):
        places = {f"{name}: {how}": (lambda at, name=name, how=how: odd(at / name, how)) for how in ODD}
        yield from changed_folder("files of a model", ours, sampled, places)
    lies = {
        f"header: {key}": (lambda at, c=content: (at / WEIGHTS).write_bytes(c)) for key, content in headers().items()
    }
    yield from changed_folder("weights", ours, sampled, lies)
    yield from changed_folder("weights", theirs, sampled, {f"their {k}": v for k, v in lies.items()})

    def each_tensor(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], None]:
        return lambda at: network_file(at, lambda s: s.update({k: change(v) for k, v in s.items()}))

    yield from changed_folder(
        "weights",
        ours,
        sampled,
        {
            "NaN": each_tensor(lambda v: v * torch.nan),
            "infinite": each_tensor(lambda v: v + torch.inf),
            "whole numbers": each_tensor(lambda v: v.long()),
            "complex": each_tensor(lambda v: v.to(torch.complex64)),
            "8 bits": each_tensor(lambda v: v.to(torch.float8_e4m3fn)),
            "yes and no": each_tensor(lambda v: v > 0),
            "other shapes": each_tensor(lambda v: v[None]),
            "one more": lambda at: network_file(at, lambda s: s.update(x=torch.ones(1))),
            "one less": lambda at: network_file(at, lambda s: s.pop(next(iter(s))) is None),
            "huge": each_tensor(lambda v: v * 0 + 3e38),
            "tampered": lambda at: flip(at / WEIGHTS),
        },
    )

    def config(**changed: Any) -> Callable[[Path], None]:
        return lambda at: changed_json(at / "unet" / "config.json", changed)

    yield from changed_folder(
        "networks",
        ours,
        sampled,
        {
            "10^9 channels": config(block_out_channels=[10**9]),
            "20,000 layers": config(layers_per_block=20_000),
            "10^9 layers": config(layers_per_block=10**9),
            "10^6 blocks": config(block_out_channels=[8] * 10**6),
            "10^9 groups": config(norm_num_groups=10**9),
            "another class": config(_class_name="Tuple"),
            "code": config(_class_name="Made", factory="os:system"),
            "10^9 in": config(in_channels=10**9),
            "code of a block": config(down_block_types=["os.system"]),
            "10^12 classes": config(num_class_embeds=10**12),
            "NaN": config(dropout=float("nan")),
            "dropout 7": config(dropout=7),
        },
    )

    def schedule(**changed: Any) -> Callable[[Path], None]:
        return lambda at: changed_json(at / "scheduler" / "scheduler_config.json", changed)

    yield from changed_folder(
        "schedulers",
        theirs,
        sampled,
        {
            "10^9 steps": schedule(num_train_timesteps=10**9),
            "no steps": schedule(num_train_timesteps=0),
            "one step": schedule(num_train_timesteps=1),
            "NaN": schedule(beta_start=float("nan")),
            "negative": schedule(beta_start=-1.0),
            "above 1": schedule(beta_end=3.0),
            "words": schedule(trained_betas="os.system"),
            "10^6 betas": schedule(trained_betas=[0.5] * 10**6),
            "code": schedule(_class_name="os.system"),
            "of another kind": schedule(prediction_type="<script>"),
            "tables": schedule(trained_betas=[{}] * 1000),
        },
    )
    for suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl"):
        yield Case(
            kind="pickles", name=f"file {suffix}", words=lambda at, s=suffix: ["inspect", str(pickled(at, f"x{s}"))]
        )
    yield from changed_folder(
        "pickles",
        theirs,
        sampled,
        {
            "in a pipeline": lambda at: [
                (at / WEIGHTS).unlink(),
                pickled(at.parent, "in/unet/diffusion_pytorch_model.bin"),
            ],
            "under the name of safetensors": lambda at: pickled(at.parent, f"in/{WEIGHTS}"),
        },
    )


def judges(base: Path, each: int, seed: int) -> Iterator[Case]:
    def judged(folder: Path) -> Words:
        return [
            "evaluate",
            "demo",
            "--forget",
            RULE,
            "--judge",
            str(folder / "in"),
            "--out",
            str(folder / "out"),
            *LOOK,
        ]

    for case in mutations("entries of a judge", base / "judge", "config.json", judged, each=each, seed=seed):
        yield Case(kind=case.kind, name=case.name, words=case.words, must=False, until_work=True)
    for name in ("config.json", "model.safetensors"):
        places = {f"{name}: {how}": (lambda at, name=name, how=how: odd(at / name, how)) for how in ODD}
        yield from changed_folder("files of a judge", base / "judge", judged, places)
    lies = {
        f"header: {key}": (lambda at, c=content: [(at / "model.safetensors").write_bytes(c), judge_of(at)])
        for key, content in headers().items()
    }
    yield from changed_folder(
        "files of a judge",
        base / "judge",
        judged,
        {
            **lies,
            "NaN": lambda at: rewritten(at, lambda s: s.update({k: v * torch.nan for k, v in s.items()})),
            "other shapes": lambda at: rewritten(at, lambda s: s.update({k: v[None] for k, v in s.items()})),
            "one less": lambda at: rewritten(at, lambda s: s.pop(next(iter(s))) is None),
            "one class": lambda at: judge_of(at, classes=[0], names=["0"]),
            "no class": lambda at: judge_of(at, classes=[], names=[]),
            "10^6 pixels": lambda at: judge_of(at, shape=[1, 10**6, 10**6]),
            "1 pixel": lambda at: judge_of(at, shape=[1, 1, 1]),
            "10^9 wide": lambda at: judge_of(at, network={"width": 10**9}),
            "10^6 classes": lambda at: judge_of(at, classes=list(range(10**6)), names=None),
            "no confusion": lambda at: judge_of(at, record={}),
            "confusion of words": lambda at: judge_of(at, record={"confusion": "x"}),
        },
    )
