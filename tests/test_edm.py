"""EDM's networks, made here with their names and shapes: read by the paper's formulas, saved, read again."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from test_checkpoint import outputs
from torch import Tensor

from msgm.errors import UserError
from msgm.formats import describe, load, save
from msgm.formats.edm import layout
from msgm.model.song import Song
from msgm.model.song_edm import EDMConfig, SongEDM
from msgm.process.sde import VESDE

TINY: dict[str, Any] = {
    "size": 8, "channels": 1, "width": 16, "multiples": (1, 2), "blocks": 1, "attention": (1,), "dropout": 0.0
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "ddpm++": {},
    "ncsn++": {"fourier": True},
    "augmented": {"augments": 9},
    "conditional": {"classes": 5, "augments": 9},
}


def tiny(kind: str) -> SongEDM:
    torch.manual_seed(0)
    return SongEDM(**TINY, **KINDS[kind]).eval()


@pytest.mark.parametrize(
    ("options", "millions"),
    # Karras et al. 2022, Table 7: CIFAR-10 55.7 M (DDPM++, augmented), FFHQ at 64x64 61.8 M.
    [
        ({"augments": 9}, 55.7),
        ({"size": 64, "multiples": (1, 2, 2, 2), "attention": (2,), "augments": 9}, 61.8),
    ],
)
def test_the_networks_have_as_many_weights_as_the_published_ones(options: dict[str, Any], millions: float) -> None:
    with torch.device("meta"):
        network = SongEDM(**options)
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 1) == millions


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("more", [{}, {"size": 64, "multiples": (1, 2, 2, 2), "attention": (0, 2), "blocks": 3}])
def test_names_and_shapes_tell_the_network(kind: str, more: dict[str, Any]) -> None:
    config = EDMConfig(**{**TINY, **KINDS[kind], **more, "dropout": EDMConfig.dropout})
    with torch.device("meta"):
        state = SongEDM(**vars(config)).state_dict()
    assert layout(state, Path("x.pt")) == config


@pytest.mark.parametrize("fourier", [False, True])
def test_it_is_score_sdes_network_under_other_names(fourier: bool) -> None:
    """The authors say that both are equivalent: with the same weights, Song's own gives the same output."""
    torch.manual_seed(0)
    options = {"width": 16, "multiples": (1, 2), "blocks": 1, "attention": (1,), "channels": 1, "dropout": 0.0}
    theirs = SongEDM(**options, size=8, fourier=fourier).eval()
    ours = Song(**options, fourier=fourier, residual_input=fourier, sigmas=0).eval()
    parts = list(ours.all_modules)
    with torch.no_grad():
        if fourier:
            parts.pop(0).W.copy_(theirs.map_noise.freqs)
        for linear, other in ((parts.pop(0), theirs.map_layer0), (parts.pop(0), theirs.map_layer1)):
            linear.load_state_dict(other.state_dict())
        for place, block in (*theirs.enc.items(), *theirs.dec.items()):
            part, own = parts.pop(0), block.state_dict()
            state = {
                (name.replace("norm0", "GroupNorm_0").replace("conv0", "Conv_0").replace("affine", "Dense_0")
                 .replace("norm1", "GroupNorm_1").replace("conv1", "Conv_1").replace("skip", "Conv_2")): value
                for name, value in own.items() if "resample" not in name
            }  # fmt: skip
            if "aux_residual" in place:
                state = {f"Conv2d_0.{name}": value for name, value in state.items()}
            attends = {k: state.pop(k) for k in list(state) if k.split(".")[0] in ("norm2", "qkv", "proj")}
            part.load_state_dict(state)
            if attends:
                part = parts.pop(0)
                part.GroupNorm_0.weight.copy_(attends["norm2.weight"])
                part.GroupNorm_0.bias.copy_(attends["norm2.bias"])
                maps = [attends["qkv.weight"][k::3, :, 0, 0] for k in range(3)] + [attends["proj.weight"][:, :, 0, 0]]
                shifts = [attends["qkv.bias"][k::3] for k in range(3)] + [attends["proj.bias"]]
                for k, (weight, bias) in enumerate(zip(maps, shifts, strict=True)):
                    getattr(part, f"NIN_{k}").W.copy_(weight.T)
                    getattr(part, f"NIN_{k}").b.copy_(bias)
        assert not parts
        x, sigma = images(), torch.tensor([0.3, 1.0, 2.0])
        if fourier:  # there the image lies in [0, 1], the label is sigma and the output is divided by it
            expected = ours((x + 1) / 2, sigma) * sigma[:, None, None, None]
            torch.testing.assert_close(theirs(x, sigma.log()), expected, rtol=1e-4, atol=1e-4)
        else:
            torch.testing.assert_close(theirs(x, sigma), ours(x, sigma), rtol=1e-4, atol=1e-4)


def images() -> Tensor:
    return torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prefix", ["model.", ""])
def test_a_file_is_read_by_the_papers_formula(kind: str, prefix: str, tmp_path: Path) -> None:
    network = tiny(kind)
    state = {prefix + name: value for name, value in network.state_dict().items()}
    torch.save(state, tmp_path / "edm.pt")
    save_file(state, tmp_path / "edm.safetensors")
    label = {"class_label": 3} if kind == "conditional" else {}
    t = torch.tensor([0.1, 0.5, 0.9])
    sigma = 0.002 * 40_000**t
    # D = c_skip x + c_out F(c_in x, log(sigma) / 4), sigma_data = 1/2.
    s, total = sigma[:, None, None, None], (sigma**2 + 0.25)[:, None, None, None]
    given = (torch.full((3,), 3),) if label else ()
    x = s * images()
    with torch.no_grad():
        raw = network(x / total.sqrt(), sigma.log() / 4, *given)
        expected = 0.25 / total * x + s * 0.5 / total.sqrt() * raw
        for name in ("edm.pt", "edm.safetensors"):
            model = load(tmp_path / name, **label)
            assert model.sde == VESDE(sigma_min=0.002, sigma_max=80.0) and model.shape == (1, 8, 8)
            torch.testing.assert_close(model.denoise(x, t), expected, rtol=1e-3, atol=1e-4)
    assert "EDM" in describe(model)
    save(model, tmp_path / "o")
    assert torch.equal(outputs(load(tmp_path / "o")), outputs(model))


def test_the_class_moves_the_time_as_published() -> None:
    network = tiny("conditional")
    label, classes = torch.tensor([0.5, -1.0]), torch.tensor([2, 4])
    with torch.no_grad():
        rates = (1 / 10000) ** (torch.arange(8) / 7)
        waves = torch.cat([(label[:, None] * rates).sin(), (label[:, None] * rates).cos()], 1)
        told = math.sqrt(5) * network.map_label.weight[:, classes].T + network.map_label.bias
        expected = network.map_layer1(torch.nn.functional.silu(network.map_layer0(waves + told)))
        torch.testing.assert_close(network.time(label, classes), torch.nn.functional.silu(expected))


def test_what_is_not_chosen_or_not_read_is_said(tmp_path: Path) -> None:
    torch.save(tiny("conditional").state_dict(), tmp_path / "c.pt")
    torch.save(tiny("ddpm++").state_dict(), tmp_path / "u.pt")
    broken = tiny("ddpm++").state_dict()
    del broken["dec.8x8_aux_norm.weight"]
    torch.save(broken, tmp_path / "b.pt")
    for name, options, words in (
        ("c.pt", {}, "0 to 4"),
        ("c.pt", {"class_label": 5}, "0 to 4"),
        ("u.pt", {"class_label": 1}, "no classes"),
        ("u.pt", {"process": "vp"}, "process"),
        ("b.pt", {}, "aux_norm"),
    ):
        with pytest.raises(UserError, match=words):
            load(tmp_path / name, **options)  # type: ignore[arg-type]
