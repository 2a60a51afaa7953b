"""Folders of diffusers as others leave them: read as diffusers does and given back, or refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMPipeline,
    DDIMScheduler,
    DDPMScheduler,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    ScoreSdeVePipeline,
    ScoreSdeVeScheduler,
)  # fmt: skip
from PIL import Image
from test_checkpoint import unet
from test_formats import pipeline, refused

from msgm.cli.main import main
from msgm.errors import UserError
from msgm.formats import describe, load, save
from msgm.formats.native import WEIGHTS
from msgm.sampling.stochastic import ReverseDiffusion

SHARDS = {"max_shard_size": "5KB"}
UNLIKE = {"clip_sample": False, "set_alpha_to_one": False, "timestep_spacing": "trailing"}
"""Settings that are not those of DDPM's own scheduler."""


def drawn(folder: Path) -> np.ndarray:
    pipe = DiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    images: np.ndarray = pipe(
        batch_size=2, num_inference_steps=5, generator=torch.Generator().manual_seed(0), output_type="np"
    ).images
    return images


def given_back(folder: Path, out: Path) -> Path:
    save(load(folder), out)
    return out


def test_pixels_of_ve_pipelines_lie_between_0_and_1(tmp_path: Path) -> None:
    """A score of 20 / sigma ends at one value: the picture that diffusers makes of it, and ours."""
    network = unet(channels=3, time_embedding_type="fourier")
    with torch.no_grad():
        network.conv_out.weight.zero_()
        network.conv_out.bias.fill_(20.0)
    scheduler = ScoreSdeVeScheduler(num_train_timesteps=100, sigma_min=1e-4, sigma_max=0.02, correct_steps=0)
    pipeline(tmp_path / "m", network, scheduler, kind=ScoreSdeVePipeline)
    pipe = DiffusionPipeline.from_pretrained(tmp_path / "m")
    pipe.set_progress_bar_config(disable=True)
    theirs = 255 * pipe(batch_size=4, num_inference_steps=100, output_type="np").images.mean()
    model = load(tmp_path / "m")
    ours = model.space.to_pixels(ReverseDiffusion(model, steps=100).sample(4, seed=0)).float().mean()
    assert 20 < theirs < 235
    assert float(ours) == pytest.approx(theirs, abs=3)


@pytest.mark.parametrize("asked", ["unet_ema", f"unet_ema/{Path(WEIGHTS).name}", f"elsewhere/{Path(WEIGHTS).name}"])
def test_a_network_that_is_not_there_is_not_replaced_by_another(asked: str, tmp_path: Path) -> None:
    pipeline(tmp_path / "m")
    assert "there are: unet" in refused(tmp_path / "m", weights=asked)
    assert "no weights" in refused(tmp_path / "m" / "unet", weights="unet_ema")
    for right in ("unet", f"unet/{WEIGHTS}", WEIGHTS):
        load(tmp_path / "m", weights=right)


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_shards_are_taken_before_an_older_file_as_diffusers_does(variant: str | None, tmp_path: Path) -> None:
    folder, new = tmp_path / "m", unet()
    pipeline(folder)
    if variant is not None:
        (folder / "unet" / WEIGHTS).unlink()
    with torch.no_grad():
        new.conv_in.weight.fill_(0.5)
    new.save_pretrained(folder / "unet", variant=variant, **SHARDS)
    model = load(folder)
    assert float(model.network.conv_in.weight.detach().mean()) == 0.5
    assert ".index." in describe(model)


@pytest.mark.parametrize("place", ["sibling", "inside", "flat", "link", "many"])
def test_the_scheduler_is_given_back_wherever_it_lay(place: str, tmp_path: Path) -> None:
    whole = pipeline(tmp_path / "whole", scheduler=DDIMScheduler(**UNLIKE), kind=DDIMPipeline)
    assert np.abs(drawn(whole) - drawn(pipeline(tmp_path / "other"))).max() > 0.1
    config = whole / "scheduler" / "scheduler_config.json"
    asked = tmp_path / "asked"
    if place == "sibling":
        asked = whole / "unet"
    elif place == "inside":
        shutil.copytree(whole / "unet", asked / "unet")
        shutil.copy(config, asked / "unet")
    elif place == "flat":
        shutil.copytree(whole / "unet", asked)
        shutil.copy(config, asked)
    else:
        shutil.copytree(whole, asked)
        if place == "link":
            shutil.move(asked / "scheduler", tmp_path / "linked")
            (asked / "scheduler").symlink_to(tmp_path / "linked")
        else:
            for k in range(120):
                (asked / f"image_{k:03}.png").write_bytes(b"a picture")
            assert "of its other files 22 are not given back" in describe(load(asked))
    assert np.array_equal(drawn(given_back(asked, tmp_path / "out")), drawn(whole))


def test_a_learned_variance_without_a_pipeline_can_be_drawn(tmp_path: Path) -> None:
    unet(out_channels=2).save_pretrained(tmp_path / "m")
    given_back(tmp_path / "m", tmp_path / "out")
    assert drawn(tmp_path / "out").shape == (2, 4, 4, 1)
    assert "its variance is left alone" in describe(load(tmp_path / "out"))


def test_a_network_with_a_readme_comes_as_a_pipeline_too(tmp_path: Path) -> None:
    unet().save_pretrained(tmp_path / "m")
    (tmp_path / "m" / "README.md").write_text("a card")
    given_back(tmp_path / "m", tmp_path / "out")
    assert (tmp_path / "out" / "README.md").read_text() == "a card"
    assert drawn(tmp_path / "out").shape == (2, 4, 4, 1)


@pytest.mark.parametrize("sign", ["class", "folder"])
def test_latent_models_are_refused_by_any_sign_of_it(sign: str, tmp_path: Path) -> None:
    folder = pipeline(tmp_path / "m")
    index = folder / "model_index.json"
    if sign == "class":
        index.write_text(index.read_text().replace("DDPMPipeline", "LDMPipeline"))
    else:
        index.unlink()
        (folder / "first_stage").mkdir()
        (folder / "first_stage" / "config.json").write_text('{"_class_name": "AutoencoderKL"}')
    for path in (folder, folder / "unet"):
        assert "not latent" in refused(path)


def test_the_pipeline_says_of_what_class_its_scheduler_is(tmp_path: Path) -> None:
    folder = pipeline(tmp_path / "m")
    index, config = folder / "model_index.json", folder / "scheduler" / "scheduler_config.json"
    unnamed = {k: v for k, v in json.loads(config.read_text()).items() if k != "_class_name"}
    config.write_text(json.dumps(unnamed))
    assert "DDPM of 1000 steps" in describe(load(folder))
    index.write_text(index.read_text().replace("DDPMScheduler", "FlowMatchEulerDiscreteScheduler"))
    assert "FlowMatchEulerDiscreteScheduler" in refused(folder)


def test_what_describes_a_model_belongs_to_its_weights(tmp_path: Path) -> None:
    one = given_back(pipeline(tmp_path / "a"), tmp_path / "one")
    other = pipeline(tmp_path / "b", scheduler=DDPMScheduler(prediction_type="v_prediction"))
    other = given_back(other, tmp_path / "other")
    kept = (one / "score.json").read_text()
    shutil.copy(other / "score.json", one)
    assert "belongs to another model" in refused(one)
    (one / "score.json").write_text(kept)
    config = one / "unet" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "_diffusers_version": "9.9"}))
    load(one)
    config.write_text(json.dumps({**json.loads(config.read_text()), "flip_sin_to_cos": False}))
    assert "belongs to another model" in refused(one)


def test_files_that_a_run_writes_are_not_kept(tmp_path: Path) -> None:
    folder = pipeline(tmp_path / "m", unet(8))
    for name in ("log.jsonl", "run.json"):
        (folder / name).write_text("theirs")
    (folder / "notes.txt").write_text("a note")
    data = tmp_path / "data"
    for k in range(8):
        (data / str(k % 2)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), 20 * k, np.uint8)).save(data / str(k % 2) / f"{k}.png")
    words = ["unlearn", str(folder), "--data", str(data), "--forget", "label == 1", "--method", "orthogonal"]
    main([*words, "--steps", "2", "--batch", "2", "--warmup", "1", "--out", str(tmp_path / "out")])
    assert "theirs" not in (tmp_path / "out" / "log.jsonl").read_text()
    assert (tmp_path / "out" / "notes.txt").read_text() == "a note"
    load(tmp_path / "out")


def test_models_of_flows_are_refused_by_that_name(tmp_path: Path) -> None:
    pipeline(tmp_path / "m", scheduler=DPMSolverMultistepScheduler(use_flow_sigmas=True))
    assert "use_flow_sigmas" in refused(tmp_path / "m")


def test_times_that_are_looked_up_are_refused_by_that_name(tmp_path: Path) -> None:
    unet(time_embedding_type="learned", num_train_timesteps=1000).save_pretrained(tmp_path / "m")
    assert "time_embedding_type 'learned'" in refused(tmp_path / "m")


def test_a_pointer_and_a_page_are_not_called_pickles(tmp_path: Path) -> None:
    pipeline(tmp_path / "m")
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0"
    (tmp_path / "m" / "unet" / WEIGHTS).write_bytes(pointer)
    (tmp_path / "a.pth").write_bytes(pointer)
    (tmp_path / "b.pth").write_bytes(b"<html>not found</html>")
    assert "git lfs pull" in refused(tmp_path / "m")
    assert "git lfs pull" in refused(tmp_path / "a.pth")
    assert "not a file of torch.save" in refused(tmp_path / "b.pth")


def test_an_index_of_no_shards_is_named(tmp_path: Path) -> None:
    pipeline(tmp_path / "m")
    (tmp_path / "m" / "unet" / f"{WEIGHTS}.index.json").write_text('{"weight_map": {}}')
    assert "names no files of weights" in refused(tmp_path / "m")


def test_what_half_precision_cannot_hold_is_not_saved_so(tmp_path: Path) -> None:
    network = unet()
    with torch.no_grad():
        network.conv_in.weight.fill_(1e6)
    model = load(pipeline(tmp_path / "m", network))
    with pytest.raises(UserError, match=r"conv_in\.weight has values beyond half precision"):
        save(model, tmp_path / "out", half=True)
    save(model, tmp_path / "out")
