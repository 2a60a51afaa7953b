"""Fill the table of families of docs/models.md, by trying each: python scripts/make_families.py.

A tiny model of every family is made by its own library, or with the names and shapes of its code where that is no
package; loaded, compared with the family's own formula, unlearned for two steps, saved, and read and drawn from by its
own library in a process where msgm cannot be imported. A family that fails a step ends the script with an error.

With --check nothing is written: the exit status says whether the page is up to date.
"""

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from blocks import ROOT, fill, table
from diffusers import (
    DDIMPipeline,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    ScoreSdeVePipeline,
    ScoreSdeVeScheduler,
    UNet2DModel,
)
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import msgm
from msgm.data import ForgetRequest, Images
from msgm.forgetting.methods import orthogonal
from msgm.formats import Reading, save
from msgm.model.song import Song
from msgm.model.song_edm import SongEDM
from msgm.training.loop import unlearn
from msgm.training.runs import RunSpec
from msgm.training.settings import UnlearnSettings

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
TIMES = torch.tensor([100, 500, 900])
CLOSE = 1e-5
OLD = ((".to_q.", ".query."), (".to_k.", ".key."), (".to_v.", ".value."), (".to_out.0.", ".proj_attn."))
Formula = Callable[[Tensor], Tensor]
"""The score of images (3, 1, 8, 8) at three times, by the family's own network and formula."""

# Runs where msgm cannot be imported: draws two images from each folder of a pipeline, with what is named there.
DRAW = """
import json, sys
sys.modules["msgm"] = None
import torch
from diffusers import DDPMScheduler, DiffusionPipeline, ScoreSdeVeScheduler, UNet2DModel
for folder, label in json.loads(sys.argv[1]):
    torch.manual_seed(0)
    if json.load(open(folder + "/model_index.json"))["_class_name"] == "ScoreSdeVePipeline":  # it draws colour only
        network = UNet2DModel.from_pretrained(folder + "/unet")
        scheduler = ScoreSdeVeScheduler.from_pretrained(folder + "/scheduler")
        scheduler.set_timesteps(2)
        scheduler.set_sigmas(2)
        images = torch.randn(2, 1, 8, 8) * scheduler.init_noise_sigma
        for k, sigma in zip(scheduler.timesteps, scheduler.sigmas):
            said = network(images, sigma.expand(2)).sample.detach()
            images = scheduler.step_pred(said, k, images).prev_sample
    elif label is None:
        pipeline = DiffusionPipeline.from_pretrained(folder)
        pipeline.set_progress_bar_config(disable=True)
        images = torch.as_tensor(pipeline(batch_size=2, num_inference_steps=2, output_type="np").images)
    else:
        network, scheduler = UNet2DModel.from_pretrained(folder + "/unet"), DDPMScheduler()
        scheduler.set_timesteps(2)
        images = torch.randn(2, 1, 8, 8)
        for k in scheduler.timesteps:
            said = network(images, k, class_labels=torch.full((2,), label)).sample.detach()
            images = scheduler.step(said, k, images).prev_sample
    assert images.shape[0] == 2 and bool(images.isfinite().all()), folder
"""
FACTORY = """
import torch
from torch import nn
import msgm
from msgm.model.precondition import V

def build(path):
    network = nn.Conv2d(1, 1, 3, padding=1)
    if path is not None:
        network.load_state_dict(torch.load(path, weights_only=True))
    return msgm.ScoreModel(Labelled(network), msgm.sde.VPSDE(), shape=(1, 8, 8), precondition=V())

class Labelled(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner
    def forward(self, x, label):
        return self.inner(x)
    def state_dict(self, *a, **k):
        return self.inner.state_dict(*a, **k)
    def load_state_dict(self, state, *a, **k):
        return self.inner.load_state_dict(state, *a, **k)
"""


def unet(**more: Any) -> UNet2DModel:
    torch.manual_seed(0)
    options: dict[str, Any] = {
        "sample_size": 8, "in_channels": 1, "out_channels": 1, "layers_per_block": 1, "block_out_channels": (8, 8),
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "norm_num_groups": 4, "attention_head_dim": 4,
    }  # fmt: skip
    return UNet2DModel(**options | more).eval()


def ddpm(network: UNet2DModel, scheduler: Any, **asked: Any) -> Formula:
    """The score of DDPM's betas: minus the noise over sigma, the noise by what the network predicts."""
    bars = scheduler.alphas_cumprod[TIMES].view(-1, 1, 1, 1)
    alpha, sigma = bars.sqrt(), (1 - bars).sqrt()

    def score(x: Tensor) -> Tensor:
        said = network(x, TIMES, **asked).sample[:, :1]
        kind = scheduler.config.prediction_type
        if kind == "sample":
            return (alpha * said - x) / sigma**2
        return -(said if kind == "epsilon" else alpha * said + sigma * x) / sigma

    return score


def sigmas(low: float, high: float) -> Tensor:
    return low * (high / low) ** (TIMES / 999)


Family = tuple[str, Path, Formula, Reading, Any]
"""Its name, where it lies, its score, how it is read, and how its own library draws: a class, or False for none."""


def diffusers_families(root: Path) -> list[Family]:
    found: list[Family] = []

    def add(name: str, network: UNet2DModel, scheduler: Any, kind: Any = DDPMPipeline, **how: Any) -> Path:
        place = root / name
        kind(network, scheduler).save_pretrained(place, **how)
        found.append((name, place, ddpm(network, scheduler), Reading(), None))
        return place

    add("DDPMPipeline", unet(), DDPMScheduler())
    add("DDIMPipeline", unet(), DDIMScheduler(), DDIMPipeline)
    for kind, name in (("v_prediction", "v prediction"), ("sample", "sample prediction")):
        add(name, unet(), DDPMScheduler(prediction_type=kind))
    add("learned variance", unet(out_channels=2), DDPMScheduler(variance_type="learned_range"))
    add("pickled weights (.bin)", unet(), DDPMScheduler(), safe_serialization=False)
    add("shards", unet(), DDPMScheduler(), max_shard_size="20KB")
    old = add("old attention names", unet(), DDPMScheduler()) / WEIGHTS
    state = {}
    for key, value in load_file(old).items():
        for now, before in OLD:
            key = key.replace(now, before)
        state[key] = value
    save_file(state, old)

    place, network = root / "bare UNet2DModel", unet()
    network.save_pretrained(place)
    found.append(("bare UNet2DModel", place, ddpm(network, DDPMScheduler()), Reading(), None))
    place, network = root / "class-conditional", unet(num_class_embeds=4)
    DDPMPipeline(network, DDPMScheduler()).save_pretrained(place)
    formula = ddpm(network, DDPMScheduler(), class_labels=torch.full((3,), 2))
    found.append(("class-conditional", place, formula, Reading(class_label=2), 2))
    place, network = root / "ScoreSdeVePipeline", unet(time_embedding_type="fourier")
    ScoreSdeVePipeline(network, ScoreSdeVeScheduler(sigma_max=50.0)).save_pretrained(place)
    level = sigmas(0.01, 50)
    found.append(("ScoreSdeVePipeline", place, lambda x: network(x, level).sample, Reading(), None))
    return found


def other_families(root: Path) -> list[Family]:
    found: list[Family] = []
    t = TIMES / 999
    tiny: dict[str, Any] = {"width": 16, "multiples": (1, 2), "blocks": 1, "channels": 1, "dropout": 0.0}

    def theirs(name: str, options: dict[str, Any], formula: Callable[[Song], Formula]) -> None:
        torch.manual_seed(0)
        network = Song(**tiny, sigmas=7, **options).eval()
        network.sigmas.copy_(torch.linspace(math.log(50), math.log(0.01), 7).exp())
        path = root / f"{name}.pth"
        torch.save({"model": {f"module.{k}": v for k, v in network.state_dict().items()}, "step": 1}, path)
        found.append((f"score_sde, {name}", path, formula(network), Reading(size=8), False))

    # Song et al. 2021: the output is the score at sigma(t), or minus sigma times it at 999 t.
    theirs("VE", {}, lambda network: lambda x: network(x, sigmas(0.01, 50)))
    spread = torch.sqrt(1 - torch.exp(2 * (-0.25 * t**2 * 19.9 - 0.05 * t))).view(-1, 1, 1, 1)
    options = {"fourier": False, "residual_input": False}
    theirs("VP", options, lambda network: lambda x: -network(x, 999 * t) / spread)

    # Karras et al. 2022: D = c_skip x + c_out F(c_in x, log(sigma) / 4), sigma_data 1/2.
    torch.manual_seed(0)
    network = SongEDM(**tiny, size=8, attention=(1,)).eval()
    save_file({f"model.{k}": v.contiguous() for k, v in network.state_dict().items()}, root / "edm.safetensors")
    level = sigmas(0.002, 80).view(-1, 1, 1, 1)
    total = level**2 + 0.25

    def edm(x: Tensor) -> Tensor:
        raw = network(x / total.sqrt(), level.flatten().log() / 4)
        return (0.25 / total * x + level * 0.5 / total.sqrt() * raw - x) / level**2

    found.append(("EDM", root / "edm.safetensors", edm, Reading(), False))

    (root / "families_factory.py").write_text(FACTORY)
    sys.path.insert(0, str(root))
    torch.manual_seed(3)
    plain = nn.Conv2d(1, 1, 3, padding=1)
    torch.save(plain.state_dict(), root / "plain.pt")
    alpha = msgm.sde.VPSDE().alpha(t).view(-1, 1, 1, 1)
    sigma = (1 - alpha**2).sqrt()
    reading = Reading(model_factory="families_factory:build")
    found.append(("any module", root / "plain.pt", lambda x: -(alpha * plain(x) + sigma * x) / sigma, reading, False))
    return found


def halves() -> Images:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (24, 1, 8, 8), generator=generator, dtype=torch.uint8)
    return Images.of(pixels, columns={"label": torch.arange(24) % 2}, name="halves")


def tried(family: Family, root: Path) -> tuple[list[str], Path]:
    """The row of a family, and the folder of its unlearned model. AssertionError where it does not hold."""
    name, place, formula, reading, draws = family
    model = reading.load(place)
    level = model.sde.sigma(TIMES / 999).view(-1, 1, 1, 1)
    x = level * torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, found = formula(x), model.score(x, TIMES / 999)
    gap = float((expected - found).abs().max() / expected.abs().max())
    assert gap <= CLOSE, f"{name}: the score is {gap:.1e} from its formula"
    settings = UnlearnSettings(steps=2, batch=4)
    split = ForgetRequest("label == 1").split(halves())
    run = RunSpec(device="cpu", progress=False)
    child = unlearn(model, split, method=orthogonal(every=1), settings=settings, run=run)
    out = root / f"{name} unlearned"
    save(child, out)
    again = Reading(model_factory=reading.model_factory).load(out)
    before, after = model.network.state_dict(), again.network.state_dict()
    moved = sum(int(not torch.equal(before[key], after[key])) for key in before)
    assert before.keys() == after.keys() and moved, f"{name}: no weight has moved"
    told = "drawn from by diffusers" if draws is not False else kept(name, place, out)
    return [name, f"to {CLOSE:.0e}", f"{moved} of {len(before)} tensors", told], out


def kept(name: str, place: Path, out: Path) -> str:
    """Of code that is no package: that the file which is given back has the names and shapes of the one that came."""
    if name.startswith("score_sde"):
        given, back = (torch.load(path, weights_only=True)["model"] for path in (place, out / "checkpoint.pth"))
    else:
        read = load_file(place) if place.suffix == ".safetensors" else torch.load(place, weights_only=True)
        given, back = {key.removeprefix("model."): value for key, value in read.items()}, load_file(out / WEIGHTS)
    same = {key: value.shape for key, value in given.items()} == {key: value.shape for key, value in back.items()}
    assert same, f"{name}: names or shapes are not those that came"
    return "names and shapes as they came"


def families() -> str:
    """The table, all of it tried."""
    with tempfile.TemporaryDirectory() as folder:
        root, rows, drawn = Path(folder), [], []
        for family in [*diffusers_families(root), *other_families(root)]:
            row, out = tried(family, root)
            rows.append(row)
            if family[4] is not False:
                drawn.append((str(out), family[4]))
        run = subprocess.run(
            [sys.executable, "-c", DRAW, json.dumps(drawn)], capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, run.stderr[-2000:]
    return table(("family", "score against its own formula", "moved by two steps", "without msgm"), rows)


if __name__ == "__main__":
    raise SystemExit(fill(ROOT / "docs/models.md", {"families": families()}, check="--check" in sys.argv))
