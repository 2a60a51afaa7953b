"""Models of diffusers as their authors save them: read by their own formulas, given back as they were, or refused."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel
from safetensors.torch import load_file, save_file
from test_checkpoint import files, outputs, rewrite, unet

from msgm.errors import UserError
from msgm.formats import describe, load, save
from msgm.formats.native import WEIGHTS
from msgm.formats.tensors import weights_sha256
from msgm.model.precondition import Noise, Sample, Score, V
from msgm.process.sde import DDPM, VESDE

GENERATOR = 3


def pipeline(folder: Path, network: UNet2DModel | None = None, scheduler: Any = None, kind: Any = DDPMPipeline) -> Path:
    kind(network or unet(), scheduler or DDPMScheduler()).save_pretrained(folder)
    return folder


def refused(folder: Path, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        load(folder, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def raw(network: UNet2DModel, x: torch.Tensor, k: torch.Tensor, **options: Any) -> torch.Tensor:
    with torch.no_grad():
        return network.eval()(x, k, **options).sample


def images(n: int = 3, channels: int = 1) -> torch.Tensor:
    return torch.randn(n, channels, 4, 4, generator=torch.Generator().manual_seed(GENERATOR))


# Schedulers


BETAS = {
    "linear": {},
    "scaled": {"beta_schedule": "scaled_linear", "beta_start": 0.0015, "beta_end": 0.0195},
    "cosine": {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 200},
    "sigmoid": {"beta_schedule": "sigmoid", "beta_start": 1e-4, "beta_end": 0.03},
    "trained": {"trained_betas": [0.001 * (1 + k % 7) for k in range(300)], "num_train_timesteps": 300},
    "zero snr": {"rescale_betas_zero_snr": True, "beta_schedule": "scaled_linear"},
}


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("betas", BETAS)
def test_every_beta_schedule_and_prediction_is_read(betas: str, prediction: str, tmp_path: Path) -> None:
    network, scheduler = unet(), DDPMScheduler(**BETAS[betas], prediction_type=prediction, clip_sample=False)
    model = load(pipeline(tmp_path / "m", network, scheduler))
    steps = scheduler.config.num_train_timesteps
    assert isinstance(model.sde, DDPM) and model.sde.steps == steps
    assert isinstance(model.precondition, {"epsilon": Noise, "v_prediction": V, "sample": Sample}[prediction])
    t = torch.arange(steps, dtype=torch.float64) / (steps - 1)
    bars = scheduler.alphas_cumprod.double()
    torch.testing.assert_close(model.sde.alpha(t)[:-1].square(), bars[:-1], rtol=1e-5, atol=1e-6)
    # A schedule that ends in pure noise has alpha = 0 at the last step alone; there it is all but 0.
    assert abs(float(model.sde.alpha(t)[-1].square() - bars[-1])) < 1e-6
    # The denoised image is diffusers' own.
    x, k = images(), torch.tensor([1, steps // 2, steps - 2])
    said = raw(network, x, k)
    for i in range(3):
        clean = scheduler.step(said[i : i + 1], int(k[i]), x[i : i + 1]).pred_original_sample
        with torch.no_grad():
            ours = model.denoise(x[i : i + 1], k[i] / (steps - 1))
        torch.testing.assert_close(ours, clean, rtol=1e-3, atol=1e-3 * float(clean.abs().max()))


@pytest.mark.parametrize(
    "name",
    [
        "DDIM", "PNDM", "DPMSolverMultistep", "DPMSolverSinglestep", "EulerDiscrete", "EulerAncestralDiscrete",
        "HeunDiscrete", "LMSDiscrete", "KDPM2Discrete", "DEISMultistep", "UniPCMultistep",
    ],
)  # fmt: skip
def test_samplers_of_ddpm_are_read_as_ddpm(name: str, tmp_path: Path) -> None:
    scheduler = getattr(diffusers, f"{name}Scheduler")()
    unet().save_pretrained(tmp_path / "unet")
    scheduler.save_pretrained(tmp_path / "scheduler")
    sde = load(tmp_path).sde
    assert isinstance(sde, DDPM)
    t = torch.arange(sde.steps, dtype=torch.float64) / (sde.steps - 1)
    torch.testing.assert_close(sde.alpha(t).square(), scheduler.alphas_cumprod.double(), rtol=2e-5, atol=1e-7)


def test_settings_that_an_older_file_lacks_are_those_of_its_class(tmp_path: Path) -> None:
    # HeunDiscrete's betas are not DDPM's.
    unet().save_pretrained(tmp_path / "unet")
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler/scheduler_config.json").write_text('{"_class_name": "HeunDiscreteScheduler"}')
    sde = load(tmp_path).sde
    assert isinstance(sde, DDPM) and (sde.beta_start, sde.beta_end) == (0.00085, 0.012)


def test_a_score_sde_folder_is_read_as_ve(tmp_path: Path) -> None:
    network = fourier()
    scheduler = diffusers.ScoreSdeVeScheduler(num_train_timesteps=2000, sigma_max=1348)
    diffusers.ScoreSdeVePipeline(network, scheduler).save_pretrained(tmp_path)
    model = load(tmp_path)
    assert model.sde == VESDE(sigma_min=0.01, sigma_max=1348) and model.precondition == Score()
    # Song et al. 2021: sigma(t) = sigma_min (sigma_max / sigma_min)^t is the label, and the output the score.
    t = torch.tensor([0.1, 0.5, 1.0])
    sigma = 0.01 * 134800**t
    torch.testing.assert_close(model.score(images(), t), raw(network, images(), sigma), rtol=1e-4, atol=1e-6)


def fourier(channels: int = 1) -> UNet2DModel:
    torch.manual_seed(1)
    config = dict(unet(4, channels).config) | {"time_embedding_type": "fourier"}
    return UNet2DModel(**{k: v for k, v in config.items() if not k.startswith("_")})


OTHERS = {
    "edm": diffusers.EDMEulerScheduler,
    "flow": diffusers.FlowMatchEulerDiscreteScheduler,
    "consistency": diffusers.CMStochasticIterativeScheduler,
    "lcm": diffusers.LCMScheduler,
    "vq": None,
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_schedulers_are_refused_by_name(name: str, tmp_path: Path) -> None:
    unet().save_pretrained(tmp_path / "unet")
    if OTHERS[name] is None:
        (tmp_path / "scheduler").mkdir()
        (tmp_path / "scheduler/scheduler_config.json").write_text('{"_class_name": "Mine"}')
    else:
        OTHERS[name]().save_pretrained(tmp_path / "scheduler")
    said = refused(tmp_path)
    assert "scheduler_config.json" in said and "ScoreSdeVe" in said and "DDIM" in said
    assert ("Mine" if OTHERS[name] is None else OTHERS[name].__name__) in said


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"beta_schedule": "laplace"}, "laplace"),
        ({"prediction_type": "flow_prediction"}, "flow_prediction"),
        ({"num_train_timesteps": 10**9}, "steps"),
        ({"num_train_timesteps": "many"}, "steps"),
        ({"beta_start": -1.0}, "beta_start"),
        ({"beta_end": "x"}, "beta_end"),
        ({"trained_betas": [0.1, 2.0]}, "betas"),
        ({"trained_betas": {"a": 1}}, "betas"),
        ({"prediction_type": ["epsilon"]}, "prediction_type"),
    ],
)
def test_settings_of_a_scheduler_that_cannot_be_are_named(options: dict[str, Any], word: str, tmp_path: Path) -> None:
    pipeline(tmp_path / "m")
    rewrite(tmp_path / "m/scheduler/scheduler_config.json", lambda c: c.update(options))
    said = refused(tmp_path / "m")
    assert "scheduler_config.json" in said and word in said


@pytest.mark.parametrize("place", ["scheduler_config.json", "noise_scheduler/scheduler_config.json"])
def test_a_scheduler_elsewhere_is_found(place: str, tmp_path: Path) -> None:
    unet().save_pretrained(tmp_path / "m")
    scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    scheduler.save_pretrained((tmp_path / "m" / place).parent)
    sde = load(tmp_path / "m").sde
    assert isinstance(sde, DDPM) and sde.schedule == "squaredcos_cap_v2"


def test_the_network_of_a_pipeline_keeps_its_scheduler(tmp_path: Path) -> None:
    pipeline(tmp_path, scheduler=DDPMScheduler(num_train_timesteps=77))
    assert load(tmp_path / "unet").sde == DDPM(steps=77)


def test_what_is_assumed_is_said(tmp_path: Path) -> None:
    unet().save_pretrained(tmp_path / "m")
    said = describe(load(tmp_path / "m"))
    assert "assumed" in said and "DDPM of 1000 steps, linear betas 0.0001 to 0.02" in said and "1x4x4" in said
    assert "predicts noise" in said and WEIGHTS in said
    fourier().save_pretrained(tmp_path / "f")
    assert "scheduler" in refused(tmp_path / "f")


# What is given back


SCHEDULERS = {
    "plain": (DDPMPipeline, DDPMScheduler()),
    "no clip": (DDPMPipeline, DDPMScheduler(clip_sample=False, variance_type="fixed_large")),
    "trailing": (DDPMPipeline, DDPMScheduler(timestep_spacing="trailing", clip_sample_range=2.0)),
    "ddim": (DDIMPipeline, DDIMScheduler()),
    "v": (DDPMPipeline, DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")),
    "sample": (DDPMPipeline, DDPMScheduler(prediction_type="sample")),
    "ve": (diffusers.ScoreSdeVePipeline, diffusers.ScoreSdeVeScheduler(num_train_timesteps=20, sigma_max=30)),
    "betas": (DDPMPipeline, DDPMScheduler(trained_betas=[0.01] * 50, num_train_timesteps=50)),
}

DRAW = """
import sys, torch, numpy
sys.modules["msgm"] = None  # importing it fails
from diffusers import DiffusionPipeline
for place in sys.argv[1:]:
    p = DiffusionPipeline.from_pretrained(place)
    p.set_progress_bar_config(disable=True)
    x = p(batch_size=2, num_inference_steps=4, generator=torch.Generator().manual_seed(0), output_type="np").images
    numpy.save(place + ".npy", x)
    print(type(p).__name__)
"""


def test_an_untouched_model_draws_the_same_pictures_in_plain_diffusers(tmp_path: Path) -> None:
    import numpy as np

    places = []
    for name, (kind, scheduler) in SCHEDULERS.items():
        given = pipeline(tmp_path / name, fourier(3) if name == "ve" else None, scheduler, kind)
        (given / "README.md").write_text("# A card")
        before = files(given)
        save(load(given), tmp_path / f"{name} again")
        save(load(tmp_path / f"{name} again"), tmp_path / f"{name} twice")
        assert files(given) == before
        for copy in ("again", "twice"):
            after = files(tmp_path / f"{name} {copy}")
            for place in ("scheduler/scheduler_config.json", "model_index.json", "README.md"):
                assert after[place] == before[place]
        places += [tmp_path / name, tmp_path / f"{name} twice"]
    run = subprocess.run([sys.executable, "-c", DRAW, *places], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    kinds = run.stdout.split()
    assert kinds[::2] == kinds[1::2]
    for one, other in zip(places[::2], places[1::2], strict=True):
        first, second = (np.load(f"{place}.npy") for place in (one, other))
        assert np.array_equal(first, second) and np.isfinite(first).all() and first.std() > 0


@pytest.mark.parametrize("prediction", ["v", "sample", "noise"])
def test_models_made_here_come_as_a_pipeline(prediction: str, tmp_path: Path) -> None:
    from msgm.model.precondition import PRECONDITIONS
    from msgm.model.score import ScoreModel

    sde = DDPM(steps=60, betas=tuple(0.001 * (k + 1) for k in range(60)))
    model = ScoreModel(unet(), sde, shape=(1, 4, 4), precondition=PRECONDITIONS[prediction]()).eval()
    save(model, tmp_path / "m")
    theirs = DDPMPipeline.from_pretrained(tmp_path / "m")
    t = torch.arange(60, dtype=torch.float64) / 59
    torch.testing.assert_close(theirs.scheduler.alphas_cumprod.double(), sde.alpha(t).square(), rtol=1e-5, atol=1e-7)
    theirs.save_pretrained(tmp_path / "theirs")
    again = load(tmp_path / "theirs")
    assert again.sde == sde and again.prediction == prediction and torch.equal(outputs(again), outputs(model))


def test_copies_of_the_old_weights_are_not_given_back(tmp_path: Path) -> None:
    given = pipeline(tmp_path / "m")
    torch.save(load_file(given / "unet" / WEIGHTS), given / "model.bin")
    pipeline(given / "unet_ema")
    (given / ".cache").mkdir()
    (given / "link").symlink_to("/etc/hostname")
    save(load(given), tmp_path / "o")
    assert sorted(files(tmp_path / "o")) == [
        "model_index.json", "moderation.json", "scheduler/scheduler_config.json", "score.json", "unet/config.json",
        f"unet/{WEIGHTS}",
    ]  # fmt: skip


def test_a_foreign_model_is_unlearned_from_and_drawn_by_its_own_library(tmp_path: Path) -> None:
    from tiny import FEW_STEPS, tiny_files

    from msgm.cli.main import main

    tiny_files(tmp_path)
    places = []
    for name in ("plain", "ddim", "v", "sample"):
        kind, scheduler = SCHEDULERS[name]
        given = pipeline(tmp_path / name, unet(8), scheduler, kind)
        out = tmp_path / f"{name} safe"
        options = ["--data", str(tmp_path / "data"), "--forget", "label == 1", "--steps", "2", "--batch", "4"]
        main(["unlearn", str(given), *options, *FEW_STEPS, "--out", str(out)])
        before, after = (load_file(place / "unet" / WEIGHTS) for place in (given, out))
        assert before.keys() == after.keys() and any(not torch.equal(before[k], after[k]) for k in before)
        assert (out / "scheduler/scheduler_config.json").read_bytes() == (
            given / "scheduler/scheduler_config.json"
        ).read_bytes()
        places.append(out)
    run = subprocess.run([sys.executable, "-c", DRAW, *places], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["DDPMPipeline", "DDIMPipeline", "DDPMPipeline", "DDPMPipeline"]


# Which weights


def test_weights_of_every_kind_are_read(tmp_path: Path) -> None:
    network = unet()
    expected = weights_sha256(network)
    pipe = DDPMPipeline(network, DDPMScheduler())
    pipe.save_pretrained(tmp_path / "safetensors")
    pipe.save_pretrained(tmp_path / "bin", safe_serialization=False)
    pipe.save_pretrained(tmp_path / "sharded", max_shard_size="5KB")
    pipe.save_pretrained(tmp_path / "sharded bin", max_shard_size="5KB", safe_serialization=False)
    pipe.save_pretrained(tmp_path / "variant", variant="fp16")
    pipe.save_pretrained(tmp_path / "old")
    old = {}
    for name, value in load_file(tmp_path / "old/unet" / WEIGHTS).items():
        for new, before in (
            (".to_q.", ".query."), (".to_k.", ".key."), (".to_v.", ".value."), (".to_out.0.", ".proj_attn."),
        ):  # fmt: skip
            name = name.replace(new, before)
        old[name] = value
    assert any(".query." in name for name in old)
    save_file(old, tmp_path / "old/unet" / WEIGHTS)
    for place in ("safetensors", "bin", "sharded", "sharded bin", "variant", "old"):
        model = load(tmp_path / place)
        assert weights_sha256(model.network) == expected, place
    assert "diffusion_pytorch_model.fp16.safetensors" in describe(load(tmp_path / "variant"))
    assert "index.json" in describe(load(tmp_path / "sharded"))


def test_of_several_weights_one_is_taken_and_named(tmp_path: Path) -> None:
    pipeline(tmp_path / "m", unet(seed=1))
    DDPMPipeline(unet(seed=2), DDPMScheduler()).save_pretrained(tmp_path / "m", variant="fp16")
    torch.save(unet(seed=3).state_dict(), tmp_path / "m/unet/diffusion_pytorch_model.bin")
    model = load(tmp_path / "m")
    assert weights_sha256(model.network) == weights_sha256(unet(seed=1))
    said = describe(model)
    assert "not taken: diffusion_pytorch_model.bin, diffusion_pytorch_model.fp16.safetensors" in said
    for name, seed in (("diffusion_pytorch_model.fp16.safetensors", 2), ("unet/diffusion_pytorch_model.bin", 3)):
        assert weights_sha256(load(tmp_path / "m", weights=name).network) == weights_sha256(unet(seed=seed))
    assert "there are: " in refused(tmp_path / "m", weights="else.bin")


def test_the_average_of_a_training_checkpoint_is_taken(tmp_path: Path) -> None:
    unet(seed=1).save_pretrained(tmp_path / "unet")
    unet(seed=2).save_pretrained(tmp_path / "unet_ema")
    rewrite(tmp_path / "unet_ema/config.json", lambda c: c.update(decay=0.999, optimization_step=5))
    model = load(tmp_path)
    assert weights_sha256(model.network) == weights_sha256(unet(seed=2)) and "not taken: unet" in describe(model)
    assert weights_sha256(load(tmp_path, weights="unet").network) == weights_sha256(unet(seed=1))
    # What a pipeline ships is what its author chose.
    pipeline(tmp_path, unet(seed=3))
    assert weights_sha256(load(tmp_path).network) == weights_sha256(unet(seed=3))


class Payload:
    def __reduce__(self):
        return print, ("this must not run",)


def test_a_pickle_with_code_is_not_run(tmp_path: Path, capsys) -> None:
    pipeline(tmp_path / "m")
    (tmp_path / "m/unet" / WEIGHTS).unlink()
    torch.save({"a": Payload()}, tmp_path / "m/unet/diffusion_pytorch_model.bin")
    assert "state_dict" in refused(tmp_path / "m")
    assert "this must not run" not in capsys.readouterr().out


def test_a_name_of_the_hub_is_read_from_the_cache(tmp_path: Path, monkeypatch) -> None:
    import huggingface_hub

    place = pipeline(tmp_path / "hub")
    asked = []

    def download(name: str, **options: Any) -> str:
        asked.append((name, options))
        return str(place)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert load("someone/model").shape == (1, 4, 4)
    assert asked == [("someone/model", {"local_files_only": True})]
    monkeypatch.undo()
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "empty"))
    assert "hf download someone/model" in refused(Path("someone/model"))


# Networks with more than a mean and no class


def test_of_a_learned_variance_the_mean_is_used_and_the_rest_kept(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = {k: v for k, v in unet(4, 3).config.items() if not k.startswith("_")} | {"out_channels": 6}
    network = UNet2DModel(**config)
    model = load(pipeline(tmp_path / "m", network, DDPMScheduler(variance_type="learned_range")))
    x, k = images(channels=3), torch.tensor([0, 500, 999])
    with torch.no_grad():
        torch.testing.assert_close(model.noise(x, k / 999), raw(network, x, k)[:, :3], rtol=1e-5, atol=1e-6)
    assert "variance" in describe(model)
    save(model, tmp_path / "o")
    assert torch.equal(outputs(load(tmp_path / "o")), outputs(model))
    again = DDPMPipeline.from_pretrained(tmp_path / "o").unet
    assert torch.equal(raw(again, x, k), raw(network, x, k))


def conditional() -> UNet2DModel:
    torch.manual_seed(0)
    return UNet2DModel(**{k: v for k, v in unet().config.items() if not k.startswith("_")} | {"num_class_embeds": 10})


def test_a_class_of_a_conditional_model_is_chosen(tmp_path: Path) -> None:
    network = conditional()
    place = pipeline(tmp_path / "m", network)
    said = refused(place)
    assert "num_class_embeds=10" in said and "choose a class, 0 to 9" in said
    assert "0 to 9" in refused(place, class_label=10)
    x, k = images(), torch.tensor([0, 500, 999])
    for label in (0, 7):
        model = load(place, class_label=label)
        with torch.no_grad():
            expected = raw(network, x, k, class_labels=torch.full((3,), label))
            torch.testing.assert_close(model.noise(x, k / 999), expected, rtol=1e-5, atol=1e-6)
        save(model, tmp_path / f"o{label}")
        assert torch.equal(outputs(load(tmp_path / f"o{label}")), outputs(model))
    assert "no classes" in refused(pipeline(tmp_path / "plain"), class_label=1)
    assert "class" in refused(tmp_path / "o7", class_label=1)


# What is no pixel model, or does not work


def test_latent_models_are_refused_by_name(tmp_path: Path) -> None:
    network = diffusers.VQModel(block_out_channels=(8,), latent_channels=3, norm_num_groups=4, num_vq_embeddings=32)
    latent = unet(4, 3)
    diffusers.LDMPipeline(network, latent, DDIMScheduler(clip_sample=False)).save_pretrained(tmp_path / "ldm")
    said = refused(tmp_path / "ldm")
    assert "LDMPipeline" in said and "vqvae" in said
    (tmp_path / "ldm/model_index.json").unlink()
    assert "vqvae" in refused(tmp_path / "ldm")
    assert "4 channels" in refused(pipeline(tmp_path / "four", unet(4, 4)))


def test_networks_of_another_class_are_refused_by_name(tmp_path: Path) -> None:
    pipeline(tmp_path)
    rewrite(tmp_path / "unet/config.json", lambda c: c.update(_class_name="UNet2DConditionModel"))
    assert "UNet2DConditionModel" in refused(tmp_path)


def test_sizes_that_the_depth_does_not_allow_are_found_on_loading(tmp_path: Path) -> None:
    torch.manual_seed(0)
    deep = UNet2DModel(
        sample_size=28, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownBlock2D",) * 4, up_block_types=("UpBlock2D",) * 4, norm_num_groups=4,
        add_attention=False,
    )  # fmt: skip
    said = refused(pipeline(tmp_path / "m", deep))
    assert "1x28x28" in said and "depth" in said


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_named(value: float, tmp_path: Path) -> None:
    network = unet()
    with torch.no_grad():
        network.conv_out.bias[0] = value
    assert "conv_out.bias" in refused(pipeline(tmp_path / "m", network))


@pytest.mark.parametrize("kind", [torch.int8, torch.float8_e4m3fn, torch.complex64])
def test_numbers_of_an_odd_kind_are_named(kind: torch.dtype, tmp_path: Path) -> None:
    place = pipeline(tmp_path / "m") / "unet" / WEIGHTS
    state = load_file(place)
    state["conv_in.bias"] = state["conv_in.bias"].to(kind)
    save_file(state, place)
    assert "conv_in.bias" in refused(tmp_path / "m")


HOSTILE = {
    "channels": {"block_out_channels": [10**9, 10**9]},
    "layers": {"layers_per_block": 20_000},
    "more": {"block_out_channels": [10**30, 8]},
    "embeddings": {"time_embedding_dim": 10**12},
    "groups": {"norm_num_groups": 0},
    "words": {"layers_per_block": "many"},
    "types": {"down_block_types": ["Nothing", "DownBlock2D"]},
    "lists": {"down_block_types": 3},
    "size": {"sample_size": 10**6},
    "sizes": {"sample_size": {"a": 1}},
    "in": {"in_channels": -1},
    "in words": {"in_channels": "3"},
    "out": {"out_channels": 10**9},
    "classes": {"num_class_embeds": -3},
    "class types": {"class_embed_type": "timestep"},
    "class": {"_class_name": ["UNet2DModel"]},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_configurations_that_cannot_be_are_refused_before_they_are_built(name: str, tmp_path: Path) -> None:
    pipeline(tmp_path)
    rewrite(tmp_path / "unet/config.json", lambda c: c.update(HOSTILE[name]))
    assert "unet/config.json" in refused(tmp_path)


@pytest.mark.parametrize("index", ['{"weight_map": 3}', '{"weight_map": {"a": "../../x.safetensors"}}', "[]", "{}"])
def test_a_broken_index_of_shards_is_named(index: str, tmp_path: Path) -> None:
    DDPMPipeline(unet(), DDPMScheduler()).save_pretrained(tmp_path, max_shard_size="5KB")
    (tmp_path / "unet/diffusion_pytorch_model.safetensors.index.json").write_text(index)
    assert "index.json" in refused(tmp_path)


def test_json_that_is_too_deep_is_named(tmp_path: Path) -> None:
    pipeline(tmp_path)
    for place in ("unet/config.json", "scheduler/scheduler_config.json", "model_index.json"):
        before = (tmp_path / place).read_text()
        (tmp_path / place).write_text('{"a":' * 100_000 + "1" + "}" * 100_000)
        assert place in refused(tmp_path)
        (tmp_path / place).write_text(before)
    assert json.loads((tmp_path / "model_index.json").read_text())["_class_name"] == "DDPMPipeline"


# On the command line


def test_how_a_model_was_read_is_said_and_shown(tmp_path: Path, capsys) -> None:
    from msgm.cli.main import main

    place = pipeline(tmp_path / "m", scheduler=DDPMScheduler(beta_schedule="squaredcos_cap_v2"))
    main(["inspect", str(place)])
    said = capsys.readouterr().out
    line = f"{place}: {describe(load(place))}"
    assert said.splitlines()[0] == line and "squaredcos_cap_v2" in line and "DDPMPipeline" in line
    assert weights_sha256(load(place).network) in said and "scheduler/scheduler_config.json" in said
    main(["sample", str(place), "-n", "1", "--sampler.steps", "2", "--out", str(tmp_path / "s")])
    assert line in capsys.readouterr().out


def test_a_class_is_chosen_for_good_by_convert(tmp_path: Path, capsys) -> None:
    from msgm.cli.main import main

    place = pipeline(tmp_path / "m", conditional())
    with pytest.raises(SystemExit) as stop:
        main(["sample", str(place), "-n", "1", "--out", str(tmp_path / "s")])
    assert stop.value.code == 2 and "num_class_embeds=10" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()
    main(["convert", str(place), "--class-label", "4", "--out", str(tmp_path / "o")])
    assert torch.equal(outputs(load(tmp_path / "o")), outputs(load(place, class_label=4)))
    assert "class 4" in capsys.readouterr().out
