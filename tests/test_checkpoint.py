"""Model folders: what is saved is what is loaded, also by and from diffusers; what is broken is named."""

import errno
import json
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from oracle import SDES

from msgm.errors import UserError
from msgm.formats import load, save
from msgm.formats import native as checkpoint
from msgm.formats.native import RECORD, WEIGHTS
from msgm.formats.tensors import read_tensors, weights_sha256, write_tensors
from msgm.model.networks import MLP
from msgm.model.precondition import PRECONDITIONS, Noise, V
from msgm.model.score import ScoreModel
from msgm.process.sde import DDPM, SDE, VESDE

EACH_SDE = pytest.mark.parametrize("sde", SDES.values(), ids=list(SDES))


def unet(size: int = 4, channels: int = 1, seed: int = 0, **options: Any) -> UNet2DModel:
    torch.manual_seed(seed)
    usual = {
        "sample_size": size,
        "in_channels": channels,
        "out_channels": channels,
        "layers_per_block": 1,
        "block_out_channels": (8, 8),
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": 4,
        "norm_num_groups": 4,
    }
    return UNet2DModel(**{**usual, **options})


def mlp_model(sde: SDE | None = None, seed: int = 0, **options) -> ScoreModel:
    torch.manual_seed(seed)
    return ScoreModel(MLP(dim=3, width=16, depth=1), sde or VESDE(sigma_max=20.0), shape=(3,), **options).eval()


def outputs(model: ScoreModel) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    x, t = torch.randn(5, *model.shape, generator=generator), torch.linspace(0.05, 1, 5)
    with torch.no_grad():
        return model.noise(x, t)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@EACH_SDE
@pytest.mark.parametrize("prediction", ["edm", "noise", "v"])
def test_an_mlp_comes_back_bit_for_bit(sde: SDE, prediction, tmp_path: Path) -> None:
    model = mlp_model(sde, precondition=PRECONDITIONS[prediction](sigma_data=0.7))
    save(model, tmp_path / "m")
    again = load(tmp_path / "m")
    assert torch.equal(outputs(again), outputs(model))
    assert (again.sde, again.precondition, again.patch, again.shape) == (model.sde, model.precondition, 1, (3,))
    assert not again.training and again.record["weights_sha256"] == weights_sha256(model.network)


@EACH_SDE
def test_a_unet_comes_back_bit_for_bit(sde: SDE, tmp_path: Path) -> None:
    model = ScoreModel(unet(4, 4), sde, shape=(1, 8, 8), patch=2).eval()
    save(model, tmp_path / "m")
    assert torch.equal(outputs(load(tmp_path / "m")), outputs(model))


def test_settings_of_the_process_come_back(tmp_path: Path) -> None:
    for i, sde in enumerate([VESDE(sigma_min=0.02, sigma_max=90.0), DDPM(steps=50, schedule="scaled_linear")]):
        save(mlp_model(sde), tmp_path / str(i))
        assert load(tmp_path / str(i)).sde == sde


def test_half_weights_are_rounded_once(tmp_path: Path) -> None:
    model = mlp_model()
    save(model, tmp_path / "half", half=True)
    again = load(tmp_path / "half")
    for name, value in model.network.state_dict().items():
        assert torch.equal(again.network.state_dict()[name], value.half().float())
    # The record's hash is of what is read, so that a child's record names its parent by it.
    assert again.record["weights_sha256"] == weights_sha256(again.network) != weights_sha256(model.network)
    assert (tmp_path / "half/unet" / WEIGHTS).stat().st_size < 4 * sum(p.numel() for p in model.parameters())
    save(again, tmp_path / "whole")
    assert torch.equal(outputs(load(tmp_path / "whole")), outputs(again))


def test_the_record_is_kept(tmp_path: Path) -> None:
    model = mlp_model()
    model.record = {"kind": "trained", "seed": 3, "parent": {"weights_sha256": "ab"}}
    save(model, tmp_path / "m")
    assert load(tmp_path / "m").record == {**model.record, "weights_sha256": weights_sha256(model.network)}


def test_hash_follows_weights_names_and_scalars() -> None:
    module = torch.nn.BatchNorm1d(3)
    seen = {weights_sha256(module)}
    assert weights_sha256(torch.nn.BatchNorm1d(3)) in seen
    with torch.no_grad():
        module.weight[1] += 1e-7
    seen.add(weights_sha256(module))
    module.num_batches_tracked += 1  # a scalar buffer
    seen.add(weights_sha256(module))
    assert len(seen) == 3
    one, other = torch.nn.Module(), torch.nn.Module()
    one.a, other.b = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))
    assert weights_sha256(one) != weights_sha256(other)


SCHEDULES = pytest.mark.parametrize(
    "options",
    [
        {},
        {"beta_schedule": "scaled_linear", "beta_start": 0.0015, "beta_end": 0.0195},
        {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 200},
        {"beta_schedule": "linear", "prediction_type": "v_prediction"},
    ],
    ids=["default", "scaled_linear", "cosine", "v"],
)


@SCHEDULES
def test_a_diffusers_pipeline_is_read(options, tmp_path: Path) -> None:
    network, scheduler = unet(), DDPMScheduler(**options)
    DDPMPipeline(unet=network, scheduler=scheduler).save_pretrained(tmp_path / "m")
    model = load(tmp_path / "m")
    steps = scheduler.config.num_train_timesteps
    t = torch.arange(steps, dtype=torch.float64) / (steps - 1)
    torch.testing.assert_close(
        model.sde.alpha(t).square(), scheduler.alphas_cumprod.double(), rtol=2e-6, atol=1e-6 * 1e-2
    )
    assert model.shape == (1, 4, 4)

    # At integer steps the prediction is the network's own, converted as diffusers does.
    x = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    k = torch.tensor([1, steps // 2, steps - 1])
    with torch.no_grad():
        raw, noise = network.eval()(x, k).sample, model.noise(x, k / (steps - 1))
        if "prediction_type" not in options:
            torch.testing.assert_close(noise, raw, rtol=1e-4, atol=1e-5)
        for i in range(3):
            clean = scheduler.step(raw[i : i + 1], int(k[i]), x[i : i + 1]).pred_original_sample
            expected = model.denoise(x[i : i + 1], k[i] / (steps - 1)).clamp(-1, 1)
            torch.testing.assert_close(clean, expected, rtol=1e-3, atol=2e-3)


def test_a_plain_unet_folder_is_read_as_ddpm(tmp_path: Path) -> None:
    network = unet((4, 8), 3)  # type: ignore[arg-type]
    network.save_pretrained(tmp_path / "m")
    model = load(str(tmp_path / "m"))
    assert model.sde == DDPM() and model.precondition == Noise() and model.shape == (3, 4, 8) and model.record == {}
    x = torch.randn(2, 3, 4, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = network.eval()(x, torch.tensor([0, 999])).sample
    torch.testing.assert_close(model.noise(x, torch.tensor([0.0, 1.0])), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear"])
def test_diffusers_reads_our_ddpm_folder(schedule, tmp_path: Path) -> None:
    model = ScoreModel(unet(), DDPM(schedule=schedule), shape=(1, 4, 4), precondition=Noise()).eval()
    save(model, tmp_path / "m")
    pipeline = DDPMPipeline.from_pretrained(tmp_path / "m")
    t = torch.linspace(0, 1, 1000, dtype=torch.float64)
    torch.testing.assert_close(
        pipeline.scheduler.alphas_cumprod.double(), model.sde.alpha(t).square(), rtol=2e-6, atol=1e-8
    )
    x = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        raw = pipeline.unet.eval()(x, torch.tensor([10, 999])).sample
        torch.testing.assert_close(model.noise(x, torch.tensor([10, 999]) / 999), raw, rtol=1e-4, atol=1e-5)
    # Ours again, through diffusers: as a foreign folder.
    pipeline.save_pretrained(tmp_path / "theirs")
    assert torch.equal(outputs(load(tmp_path / "theirs")), outputs(model))


def test_diffusers_files_do_not_outlive_a_ddpm_model(tmp_path: Path) -> None:
    save(ScoreModel(unet(), DDPM(), shape=(1, 4, 4), precondition=Noise()), tmp_path / "m")
    save(ScoreModel(unet(), VESDE(), shape=(1, 4, 4)), tmp_path / "m", overwrite=True)
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == [RECORD, "score.json", "unet"]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def rewrite(path: Path, change) -> None:
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


BREAKS = {
    "no weights": (f"unet/{WEIGHTS}", Path.unlink),
    "truncated weights": (f"unet/{WEIGHTS}", truncate),
    "empty weights": (f"unet/{WEIGHTS}", lambda p: p.write_bytes(b"")),
    "html for weights": (f"unet/{WEIGHTS}", lambda p: p.write_text("<html>not found</html>")),
    "no config": ("unet/config.json", Path.unlink),
    "broken config": ("unet/config.json", lambda p: p.write_text("{")),
    "list for config": ("unet/config.json", lambda p: p.write_text("[]")),
    "unknown class": ("unet/config.json", lambda p: rewrite(p, lambda c: c.update(_class_name="Transformer"))),
    "other size": ("unet/config.json", lambda p: rewrite(p, lambda c: c.update(width=17))),
    "unknown option": ("unet/config.json", lambda p: rewrite(p, lambda c: c.update(colour=1))),
    "broken settings": ("score.json", lambda p: p.write_text('{"sde"')),
    "binary settings": ("score.json", lambda p: p.write_bytes(b"\xff\xfe\x00")),
    "unknown process": ("score.json", lambda p: rewrite(p, lambda c: c["sde"].update(kind="edm"))),
    "unknown constant": ("score.json", lambda p: rewrite(p, lambda c: c["sde"].update(gamma=1))),
    "no process": ("score.json", lambda p: rewrite(p, lambda c: c.pop("sde"))),
    "nested": ("score.json", lambda p: p.write_text('{"a":' * 100_000 + "1" + "}" * 100_000)),
    "no numbers": ("score.json", lambda p: rewrite(p, lambda c: c["sde"].update(sigma_min="x"))),
    "not finite": ("score.json", lambda p: rewrite(p, lambda c: c["sde"].update(sigma_max=float("inf")))),
    "process of another kind": ("score.json", lambda p: rewrite(p, lambda c: c.update(sde=["ve"]))),
    "kind of another kind": ("score.json", lambda p: rewrite(p, lambda c: c["sde"].update(kind=["ve"]))),
    "prediction": ("score.json", lambda p: rewrite(p, lambda c: c.update(prediction=["edm"]))),
    "prediction word": ("score.json", lambda p: rewrite(p, lambda c: c.update(prediction="eps"))),
    "no scale": ("score.json", lambda p: rewrite(p, lambda c: c.update(sigma_data=0))),
    "scale word": ("score.json", lambda p: rewrite(p, lambda c: c.update(sigma_data="half"))),
    "label word": ("score.json", lambda p: rewrite(p, lambda c: c.update(per_nat="ten"))),
    "patch": ("score.json", lambda p: rewrite(p, lambda c: c.update(patch=0))),
    "patch word": ("score.json", lambda p: rewrite(p, lambda c: c.update(patch="two"))),
    "shape": ("score.json", lambda p: rewrite(p, lambda c: c.update(shape=[-3]))),
    "shape word": ("score.json", lambda p: rewrite(p, lambda c: c.update(shape="3"))),
    "huge shape": ("score.json", lambda p: rewrite(p, lambda c: c.update(shape=[1, 10**9, 10**9]))),
    "space": ("score.json", lambda p: rewrite(p, lambda c: c.update(space={"scale": -1}))),
    "space word": ("score.json", lambda p: rewrite(p, lambda c: c.update(space="unit"))),
    "class": ("score.json", lambda p: rewrite(p, lambda c: c.update(class_label="cat"))),
    "kept outside": ("score.json", lambda p: rewrite(p, lambda c: c.update(kept=["../../x"]))),
    "kept word": ("score.json", lambda p: rewrite(p, lambda c: c.update(kept=3))),
    "family": ("score.json", lambda p: rewrite(p, lambda c: c.update(family=3))),
    "a pipe": ("score.json", lambda p: (p.unlink(), os.mkfifo(p))),
    "deep network": ("unet/config.json", lambda p: rewrite(p, lambda c: c.update(depth=10**9))),
    "wide network": ("unet/config.json", lambda p: rewrite(p, lambda c: c.update(width=10**9))),
    "waves": ("unet/config.json", lambda p: rewrite(p, lambda c: c.update(frequencies=10**9))),
    "width word": ("unet/config.json", lambda p: rewrite(p, lambda c: c.update(width="x"))),
    "record of lists": (RECORD, lambda p: rewrite(p, lambda c: c.update(request=[1]))),
    "record of numbers": (RECORD, lambda p: rewrite(p, lambda c: c.update(kind=3))),
    "rule": (RECORD, lambda p: rewrite(p, lambda c: c.update(request={"rule": 3}))),
    "hash": (RECORD, lambda p: rewrite(p, lambda c: c.update(weights_sha256=3))),
    "no shape": ("score.json", lambda p: rewrite(p, lambda c: c.pop("shape"))),
    "broken record": (RECORD, lambda p: p.write_text("{'a': 1}")),
}


@pytest.mark.parametrize("name", BREAKS)
def test_what_is_broken_is_named(name: str, tmp_path: Path) -> None:
    path, damage = BREAKS[name]
    save(mlp_model(), tmp_path / "m")
    damage(tmp_path / "m" / path)
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "m" / path))):
        load(tmp_path / "m")


def test_what_is_no_model_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        load(tmp_path / "nowhere")
    with pytest.raises(UserError, match="not a model folder"):
        load(tmp_path)
    (tmp_path / "config.json").write_text('{"_class_name": "UNet2DModel"}')
    with pytest.raises(UserError, match="sample_size"):
        load(tmp_path)
    unet().save_pretrained(tmp_path)
    (tmp_path / WEIGHTS).unlink()
    with pytest.raises(UserError, match="safetensors is missing"):
        load(tmp_path)
    unet(None).save_pretrained(tmp_path / "sizeless")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="sample_size"):
        load(tmp_path / "sizeless")


def test_only_networks_that_can_be_read_are_saved(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Linear"):
        save(ScoreModel(torch.nn.Linear(2, 2), VESDE(), shape=(2,)), tmp_path / "m")
    assert files(tmp_path) == {}


def test_an_existing_folder_is_refused(tmp_path: Path) -> None:
    save(mlp_model(seed=0), tmp_path / "m")
    before = files(tmp_path)
    with pytest.raises(UserError, match="already exists"):
        save(mlp_model(seed=1), tmp_path / "m")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file"):
        save(mlp_model(seed=1), tmp_path / "file", overwrite=True)
    (tmp_path / "file").unlink()
    assert files(tmp_path) == before
    save(mlp_model(seed=1), tmp_path / "m", overwrite=True)
    assert torch.equal(outputs(load(tmp_path / "m")), outputs(mlp_model(seed=1)))


@pytest.mark.parametrize("good", range(5))
def test_a_full_disk_leaves_the_previous_model(good: int, tmp_path: Path, monkeypatch) -> None:
    """The disk is full from the ``good``-th file on, which is found out when its content is forced out."""
    save(ScoreModel(unet(), DDPM(), shape=(1, 4, 4), precondition=Noise()), tmp_path / "m")
    before, real, calls = files(tmp_path), os.fsync, []

    def fsync(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > good:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    model = ScoreModel(unet(seed=1), DDPM(), shape=(1, 4, 4), precondition=Noise())
    with pytest.raises(OSError, match="No space"):
        save(model, tmp_path / "m", overwrite=True)
    assert files(tmp_path) == before  # no temporary files either
    monkeypatch.undo()
    load(tmp_path / "m")


class Killed(BaseException):
    """The machine dies here."""


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("moment", range(8))
def test_a_save_that_is_killed_leaves_no_model_of_another(
    moment: int, overwrite: bool, tmp_path: Path, monkeypatch
) -> None:
    """Before the first rename, between any two, after the last. Half-written folders are named as such."""
    place = tmp_path / "m"
    old = ScoreModel(unet(), DDPM(), shape=(1, 4, 4), precondition=Noise()).eval()
    old.record = {"request": {"rule": "label == 0"}}
    if overwrite:
        save(old, place)
    new = ScoreModel(unet(seed=1), DDPM(steps=50), shape=(1, 4, 4), precondition=V()).eval()
    real, calls, staged = os.replace, [], f".model.{os.getpid()}.tmp"

    def replace(source, target) -> None:
        if staged not in str(target):  # the renames in the folder itself
            if len(calls) == moment:
                raise Killed
            calls.append(target)
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(shutil, "rmtree", lambda *given, **options: None)
    with suppress(Killed):
        save(new, place, overwrite=overwrite)
    monkeypatch.undo()
    if moment in (0, 7):  # nothing has been renamed, or all
        expected = new if moment == 7 else old
        if overwrite or moment == 7:
            assert torch.equal(outputs(load(place)), outputs(expected))
        else:
            with pytest.raises(UserError, match="not a model folder"):
                load(place)
    else:
        with pytest.raises(UserError, match="half-written"):
            load(place)
    save(new, place, overwrite=True)
    assert torch.equal(outputs(load(place)), outputs(new))
    assert not [p for p in place.iterdir() if p.name.startswith(".")]


def test_what_is_left_of_a_model_of_ours_is_no_foreign_one(tmp_path: Path) -> None:
    save(ScoreModel(unet(), DDPM(), shape=(1, 4, 4), precondition=Noise()), tmp_path / "m")
    (tmp_path / "m/score.json").unlink()
    with pytest.raises(UserError, match=r"score\.json is missing"):
        load(tmp_path / "m")
    (tmp_path / "m" / RECORD).unlink()
    for place in ("m", "m/unet"):
        with pytest.raises(UserError, match="half-written"):
            load(tmp_path / place)


def test_weights_and_record_must_belong_together(tmp_path: Path) -> None:
    """Weights of another model, tampered weights, a record of another model, one that names no weights, or none."""
    for seed in (0, 1):
        model = mlp_model(seed=seed)
        model.record = {"request": {"rule": f"label == {seed}"}}
        save(model, tmp_path / str(seed))
    weights, record = tmp_path / "0/unet" / WEIGHTS, tmp_path / "0" / RECORD
    kept = {path: path.read_bytes() for path in (weights, record)}

    def refused(words: str) -> None:
        with pytest.raises(UserError, match=words):
            load(tmp_path / "0")
        for path, content in kept.items():
            path.write_bytes(content)

    both = f"{re.escape(str(weights))}.*{re.escape(str(record))}"
    weights.write_bytes((tmp_path / "1/unet" / WEIGHTS).read_bytes())
    refused(both)
    record.write_bytes((tmp_path / "1" / RECORD).read_bytes())
    refused(both)
    state = read_tensors(weights)
    state["leave.bias"][0] += 1e-6
    write_tensors(weights, state)
    refused(both)
    rewrite(record, lambda r: r.pop("weights_sha256"))
    refused("weights_sha256")
    record.unlink()
    refused(RECORD)
    load(tmp_path / "0")


def test_files_of_others_are_never_replaced(tmp_path: Path) -> None:
    DDPMPipeline(unet(), DDPMScheduler()).save_pretrained(tmp_path / "theirs")
    before = files(tmp_path / "theirs")
    with pytest.raises(UserError, match="not written by msgm"):
        save(mlp_model(), tmp_path / "theirs", overwrite=True)
    assert files(tmp_path / "theirs") == before
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours/notes.txt").write_text("mine")
    for model in (ScoreModel(unet(), DDPM(), shape=(1, 4, 4), precondition=Noise()), mlp_model()):
        save(model, tmp_path / "ours", overwrite=True)
        assert (tmp_path / "ours/notes.txt").read_text() == "mine"
    assert sorted(p.name for p in (tmp_path / "ours").iterdir()) == [RECORD, "notes.txt", "score.json", "unet"]


def test_remains_of_a_killed_save_do_not_stand_in_the_way(tmp_path: Path) -> None:
    save(mlp_model(seed=0), tmp_path / "m")
    for left in (".model.7.tmp", f".model.{os.getpid()}.tmp"):
        (tmp_path / "m" / left).mkdir()
        (tmp_path / "m" / left / "config.json").touch()
    save(mlp_model(seed=1), tmp_path / "m", overwrite=True)
    assert torch.equal(outputs(load(tmp_path / "m")), outputs(mlp_model(seed=1)))
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == [RECORD, "score.json", "unet"]


def test_the_name_of_the_embedded_model(tmp_path: Path, monkeypatch) -> None:
    save(mlp_model(), tmp_path / "model")
    monkeypatch.setattr(checkpoint, "embedded", lambda name: tmp_path / name)
    assert torch.equal(outputs(load("demo")), outputs(mlp_model()))
