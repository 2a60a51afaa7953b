"""Checkpoints of score_sde, made here with its names and shapes, read by its formulas; modules of users."""

import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from test_checkpoint import outputs
from torch import Tensor, nn

from msgm.errors import UserError
from msgm.formats import describe, load, save
from msgm.formats.score_sde import layout
from msgm.model.networks import PRESETS, preset
from msgm.model.precondition import V
from msgm.model.score import ScoreModel
from msgm.model.song import NIN, Attention, Song, SongConfig, binomial, doubled, halved
from msgm.model.space import Space
from msgm.process.sde import DDPM, VESDE, VPSDE

NETWORKS = {
    "ncsn++": {},
    "ddpm++": {"fourier": False, "residual_input": False},
    "ddpm": {"fourier": False, "residual_input": False, "biggan": False},
}
TINY: dict[str, Any] = {"width": 16, "multiples": (1, 2), "blocks": 1, "channels": 1, "sigmas": 7, "dropout": 0.0}


def tiny(kind: str, seed: int = 0) -> Song:
    torch.manual_seed(seed)
    network = Song(**TINY, **NETWORKS[kind]).eval()
    network.sigmas.copy_(torch.linspace(math.log(50), math.log(0.01), 7).exp())
    return network


def checkpoint(path: Path, network: Song, average: Song | None = None, **other: Any) -> Path:
    """As score_sde_pytorch saves it: names of data parallelism, the average as a list, the optimiser."""
    trained = [p.detach() for p in (average or network).parameters() if p.requires_grad]
    torch.save(
        {
            "model": {f"module.{k}": v for k, v in network.state_dict().items()},
            "ema": {"decay": 0.9999, "num_updates": 3, "shadow_params": trained},
            "optimizer": torch.optim.Adam(network.parameters()).state_dict(),
            "step": 3,
            **other,
        },
        path,
    )
    return path


@pytest.mark.parametrize(
    ("kind", "blocks", "millions"),
    # Song et al. 2021: DDPM++ cont. 61.8 M, NCSN++ cont. 62.8 M, deep 107.6 M. Their DDPM lacks two of the upward
    # attentions of Ho et al. 2020 (35.7 M), one at the end of the level in place of one after each block.
    [("ddpm++", 4, 61.8), ("ncsn++", 4, 62.8), ("ncsn++", 8, 107.6), ("ddpm", 2, 35.2)],
)
def test_the_networks_have_as_many_weights_as_the_published_ones(kind: str, blocks: int, millions: float) -> None:
    with torch.device("meta"):
        network = Song(blocks=blocks, **NETWORKS[kind])
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 1) == millions


@pytest.mark.parametrize(
    ("name", "channels", "weights"),
    # Ho et al. 2020, CIFAR-10: 35,746,307; grey images and larger ones need no other weights but at both ends.
    [("paper-32", 3, 35_746_307), ("paper-64", 3, 35_746_307), ("paper-32", 1, 35_746_307 - 2 * 2 * 9 * 128 - 2)],
)
def test_the_papers_presets_have_as_many_weights_as_published(name: str, channels: int, weights: int) -> None:
    with torch.device("meta"):
        network = PRESETS[name].build(channels)
    assert sum(p.numel() for p in network.parameters()) == weights


def test_the_paper_s_preset_for_mnist_takes_its_images() -> None:
    chosen = preset("paper-28", (1, 28, 28))
    with torch.device("meta"):
        out = chosen.build(1)(torch.zeros(2, 1, 28, 28), torch.zeros(2)).sample
    assert out.shape == (2, 1, 28, 28)


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize(
    "options",
    [
        {"multiples": (1, 2, 2, 2), "blocks": 4, "attention": (1,)},
        {"multiples": (1, 1, 2), "blocks": 1, "attention": (0, 2)},
        {"multiples": (1, 2), "blocks": 2, "attention": (), "channels": 1},
    ],
    ids=["published", "attention at both ends", "none"],
)
def test_names_and_shapes_tell_the_network(kind: str, options: dict[str, Any]) -> None:
    config = SongConfig(width=32, **options, **NETWORKS[kind])
    with torch.device("meta"):
        state = Song(**vars(config)).state_dict()
    assert layout(state, Path("x.pth")) == config


def test_the_names_are_the_published_ones() -> None:
    with torch.device("meta"):
        state = {name: tuple(value.shape) for name, value in Song().state_dict().items()}
    assert state["all_modules.0.W"] == (128,) and state["all_modules.1.weight"] == (512, 256)
    assert state["all_modules.3.weight"] == (128, 3, 3, 3) and state["all_modules.4.Dense_0.weight"] == (128, 512)
    assert state["all_modules.8.Conv_2.weight"] == (128, 128, 1, 1)  # the first change of size
    assert state["all_modules.9.Conv2d_0.weight"] == (128, 3, 3, 3)  # and the image beside it
    assert state["all_modules.11.NIN_3.W"] == (256, 256) and state["all_modules.11.GroupNorm_0.bias"] == (256,)


def test_filtered_images_are_sums_over_the_kernel() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 6, 6, generator=generator, dtype=torch.float64)
    row = torch.tensor([1.0, 3.0, 3.0, 1.0]).double()
    torch.testing.assert_close(binomial().double(), torch.outer(row, row) / 64)
    padded = torch.zeros(2, 3, 8, 8, dtype=torch.float64)
    padded[:, :, 1:-1, 1:-1] = x
    wide = torch.zeros(2, 3, 15, 15, dtype=torch.float64)  # two zeros before, the values at every second place
    wide[:, :, 2:14:2, 2:14:2] = x
    down, up = halved(x, True), doubled(x, True)
    assert down.shape == (2, 3, 3, 3) and up.shape == (2, 3, 12, 12)
    for i in range(3):
        for j in range(3):
            patch = padded[:, :, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4]
            torch.testing.assert_close(down[:, :, i, j], (patch * binomial().double()).sum((2, 3)))
    for i in range(12):
        for j in range(12):
            patch = wide[:, :, i : i + 4, j : j + 4]
            torch.testing.assert_close(up[:, :, i, j], (patch * 4 * binomial().double()).sum((2, 3)))
    # Constants stay what they are, away from the border.
    torch.testing.assert_close(doubled(torch.ones(1, 1, 6, 6), True)[..., 2:-2, 2:-2], torch.ones(1, 1, 8, 8))


def test_attention_and_linear_maps_are_the_formulas() -> None:
    torch.manual_seed(0)
    x, nin = torch.randn(2, 8, 3, 3), NIN(8, 5)
    expected = torch.stack([x[:, :, i, j] @ nin.W + nin.b for i in range(3) for j in range(3)], -1)
    torch.testing.assert_close(nin(x).flatten(2), expected)
    attention = Attention(8, SongConfig())
    h = attention.GroupNorm_0(x)
    q, k, v = (part(h).flatten(2) for part in (attention.NIN_0, attention.NIN_1, attention.NIN_2))
    weights = (torch.einsum("bci,bcj->bij", q, k) / math.sqrt(8)).softmax(2)
    moved = attention.NIN_3(torch.einsum("bij,bcj->bci", weights, v).view_as(x))
    torch.testing.assert_close(attention(x), (x + moved) / math.sqrt(2), rtol=1e-4, atol=1e-5)


def images() -> Tensor:
    return torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(4))


def test_a_ve_checkpoint_is_read_by_its_formula(tmp_path: Path) -> None:
    average = tiny("ncsn++", seed=2)
    with torch.no_grad():  # drawn once, not trained
        average.all_modules[0].W.copy_(tiny("ncsn++").all_modules[0].W)
    model = load(checkpoint(tmp_path / "checkpoint_12.pth", tiny("ncsn++"), average), size=8)
    assert model.sde == VESDE(sigma_min=0.01, sigma_max=50.0) and model.space == Space(scale=1 / 256, shift=0)
    t = torch.tensor([0.1, 0.5, 1.0])
    with torch.no_grad():
        torch.testing.assert_close(model.score(images(), t), average(images(), 0.01 * 5000**t), rtol=1e-4, atol=1e-6)
    assert "average" in describe(model) and "score_sde" in describe(model) and "ve" in describe(model)


@pytest.mark.parametrize("kind", ["ddpm++", "ddpm"])
def test_a_vp_checkpoint_is_read_by_its_formula(kind: str, tmp_path: Path) -> None:
    network = tiny(kind)
    path = checkpoint(tmp_path / "c.pth", network)
    t, x = torch.tensor([0.1, 0.5, 1.0]), images()
    continuous, discrete = load(path, size=8), load(path, size=8, process="ddpm")
    assert continuous.sde == VPSDE() and discrete.sde == DDPM() and continuous.space == Space()
    with torch.no_grad():
        said = network(x, 999 * t)
        # log alpha = -t^2 (20 - 0.1) / 4 - 0.1 t / 2, and the score is minus the output over sigma.
        sigma = torch.sqrt(1 - torch.exp(2 * (-0.25 * t**2 * 19.9 - 0.05 * t)))[:, None, None, None]
        torch.testing.assert_close(continuous.score(x, t), -said / sigma, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(discrete.noise(x, t), said, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", NETWORKS)
def test_what_was_read_is_saved_and_comes_back(kind: str, tmp_path: Path) -> None:
    model = load(checkpoint(tmp_path / "c.pth", tiny(kind)), size=8)
    save(model, tmp_path / "o")
    again = load(tmp_path / "o")
    assert torch.equal(outputs(again), outputs(model)) and (again.sde, again.space) == (model.sde, model.space)
    # Their own kind of file lies beside it, of the weights as they are now.
    with torch.no_grad():
        for p in again.network.parameters():
            p.mul_(0.9)
    save(again, tmp_path / "o", overwrite=True)
    theirs = load(tmp_path / "o/checkpoint.pth", size=8)
    assert torch.equal(outputs(theirs), outputs(again)) and not torch.equal(outputs(theirs), outputs(model))


def test_files_without_an_average_and_bare_weights_are_read(tmp_path: Path) -> None:
    network = tiny("ddpm++")
    state = network.state_dict()
    torch.save(state, tmp_path / "bare.pt")
    save_file(state, tmp_path / "bare.safetensors")
    for name in ("bare.pt", "bare.safetensors"):
        model = load(tmp_path / name, size=8)
        assert "no average" in describe(model)
        with torch.no_grad():
            expected = network(images(), torch.full((3,), 499.5))
            torch.testing.assert_close(model.noise(images(), torch.tensor(0.5)), expected)


class Payload:
    def __reduce__(self):
        return print, ("this must not run",)


def test_files_that_are_not_read_are_refused_with_what_to_do(tmp_path: Path, capsys) -> None:
    def refused(name: str, **options: Any) -> str:
        with pytest.raises(UserError) as caught:
            load(tmp_path / name, **options)
        return str(caught.value)

    torch.save({"model": Payload()}, tmp_path / "code.pkl")
    assert "state_dict" in refused("code.pkl") and "this must not run" not in capsys.readouterr().out
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "other.pth")
    assert "name the function" in refused("other.pth")
    (tmp_path / "text.pth").write_text("<html>")
    assert "text.pth" in refused("text.pth")
    path = checkpoint(tmp_path / "c.pth", tiny("ddpm++"))
    assert "process" in refused("c.pth", process="ve", size=8)
    assert "class_label" in refused("c.pth", class_label=1)
    found = torch.load(path, weights_only=True)
    found["ema"]["shadow_params"].pop()
    torch.save(found, path)
    assert "shadow_params" in refused("c.pth")
    for average, said in (
        ({"shadow_params": [0.5] * len(found["ema"]["shadow_params"])}, "not that of its weights"),
        ({"shadow_params": 3}, "not that of its weights"),
        (found["ema"]["shadow_params"], "has no shadow_params"),
    ):
        torch.save({**found, "ema": average}, path)
        assert said in refused("c.pth")
    found["model"] = {k: v for k, v in found["model"].items() if "all_modules.5." not in k}
    torch.save(found, path)
    assert "name the function" in refused("c.pth")


FACTORY = """
import torch
from torch import nn
import msgm
from msgm.model.networks import PRESETS, preset
from msgm.model.precondition import V

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x, label):
        return self.inner(x) * label.cos()[:, None, None, None]

def build(path):
    torch.manual_seed(0)
    network = Net()
    if path is not None:
        network.load_state_dict(torch.load(path, weights_only=True)["weights"])
    return msgm.ScoreModel(network, msgm.sde.VPSDE(), shape=(1, 8, 8), precondition=V())

def other(path):
    return nn.Linear(2, 2)
"""


def test_any_module_is_read_by_a_function_of_the_users(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "mine_for_msgm.py").write_text(FACTORY)
    monkeypatch.syspath_prepend(tmp_path)
    state = {"inner.weight": torch.randn(1, 1, 3, 3), "inner.bias": torch.tensor([0.5])}
    torch.save({"weights": state}, tmp_path / "mine.pt")
    model = load(tmp_path / "mine.pt", module_factory="mine_for_msgm:build")
    assert model.sde == VPSDE() and model.precondition == V() and model.shape == (1, 8, 8)
    x, t = images(), torch.tensor([0.1, 0.5, 0.9])
    v = nn.functional.conv2d(x, state["inner.weight"], state["inner.bias"], padding=1)
    v = v * (999 * t).cos()[:, None, None, None]
    alpha = model.sde.alpha(t)[:, None, None, None]
    with torch.no_grad():
        torch.testing.assert_close(model.noise(x, t), alpha * v + (1 - alpha**2).sqrt() * x, rtol=1e-4, atol=1e-5)
    save(model, tmp_path / "o")
    # Its own state dict, and code that runs only where it is named.
    from msgm.formats.tensors import read_tensors

    saved = read_tensors(tmp_path / "o/unet/diffusion_pytorch_model.safetensors")
    assert saved.keys() == state.keys() and all(torch.equal(saved[k], state[k]) for k in state)
    sys.modules.pop("mine_for_msgm")
    with pytest.raises(UserError, match="mine_for_msgm:build"):
        load(tmp_path / "o")
    assert "mine_for_msgm" not in sys.modules
    again = load(tmp_path / "o", module_factory="mine_for_msgm:build")
    assert torch.equal(outputs(again), outputs(model)) and isinstance(again, ScoreModel)
    for name in ("mine_for_msgm", "nowhere_at_all:build", "mine_for_msgm:nothing", "mine_for_msgm:other"):
        with pytest.raises(UserError, match="factory"):
            load(tmp_path / "mine.pt", module_factory=name)
