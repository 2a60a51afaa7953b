"""The loop: a run stopped anywhere continues bit for bit, a diverging one keeps good weights, records are whole."""

import copy
import errno
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import forked, quiet, tiny_data, tiny_model, tiny_split

import msgm.cli.main as cli
from msgm import storage
from msgm.data import ForgetRequest
from msgm.errors import Interrupted, UserError
from msgm.folders import IDENTITY
from msgm.forgetting import methods
from msgm.forgetting.terms import Denoising
from msgm.formats import load, save
from msgm.formats.ledger import digest
from msgm.formats.native import RECORD, WEIGHTS
from msgm.formats.tensors import read_tensors, weights_sha256, write_tensors
from msgm.model.precondition import Noise
from msgm.model.score import ScoreModel
from msgm.process.sde import VPSDE
from msgm.status import FINISHED, diverged
from msgm.training import loop as training
from msgm.training.loop import Diverged, train, unlearn
from msgm.training.runs import LOG, STATE, read_log
from msgm.training.runtime import Runtime
from msgm.training.settings import TrainSettings, UnlearnSettings
from msgm.training.step import State

STEPS = 9
SHORT = UnlearnSettings(steps=STEPS, batch=8, warmup=3, save_every=3, seed=5)


def unlearned(out: Path | None, settings: TrainSettings = SHORT, parent: ScoreModel | None = None, **options: Any):
    method = options.pop("method", methods.redirect())
    run = quiet(out, **options)
    return unlearn(parent or tiny_model(), tiny_split(), method=method, settings=settings, run=run)  # type: ignore[arg-type]


def result(folder: Path) -> tuple[bytes, list[dict[str, Any]], dict[str, Any]]:
    """Weights, loss curve and record (but for the command) of a finished run, which leaves nothing else."""
    assert sorted(p.name for p in folder.iterdir()) == [LOG, RECORD, IDENTITY, "score.json", "unet"]
    record = json.loads((folder / RECORD).read_text())
    assert record.pop("seal") == digest(record)
    record.pop("command")
    return (folder / "unet" / WEIGHTS).read_bytes(), read_log(folder), record


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "m"
    unlearned(folder)
    return result(folder)


@pytest.mark.parametrize(
    ("step", "number"),
    [
        (1, signal.SIGINT),
        (5, signal.SIGINT),
        (STEPS, signal.SIGINT),
        (4, signal.SIGTERM),
        (7, signal.SIGHUP),
        (3, signal.SIGKILL),
        (8, signal.SIGKILL),
    ],
)
def test_a_stopped_unlearning_continues_bit_for_bit(step: int, number: int, uninterrupted, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    status = forked(lambda: unlearned(folder), step=step, number=number)
    assert status == (-signal.SIGKILL if number == signal.SIGKILL else 128 + number)
    # The others end the step and save; SIGKILL loses what came after the last saved state, all before the first.
    assert (folder / STATE).exists() == (number != signal.SIGKILL or step > 3)
    # The log is on disk as it grows.
    assert len(read_log(folder)) == step
    unlearned(folder, resume=True)
    assert result(folder) == uninterrupted


def test_stopped_twice(uninterrupted, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    assert forked(lambda: unlearned(folder), step=4, number=signal.SIGKILL) == -signal.SIGKILL
    assert forked(lambda: unlearned(folder, resume=True), step=2, number=signal.SIGINT) == 130
    assert len(read_log(folder)) == 5
    unlearned(folder, resume=True)
    assert result(folder) == uninterrupted


def test_how_often_a_run_is_saved_changes_nothing(uninterrupted, tmp_path: Path) -> None:
    unlearned(tmp_path / "m", replace(SHORT, save_every=1))
    weights, log, record = result(tmp_path / "m")
    assert (weights, log) == uninterrupted[:2] and record["settings"]["save_every"] == 1
    # A run without a folder, and with a progress bar, is the same run.
    child = unlearned(None, progress=True)
    assert weights_sha256(child.network) == record["weights_sha256"]


def test_losses_looked_at_late_and_pixels_held_change_nothing(uninterrupted, tmp_path: Path, monkeypatch) -> None:
    """As on a GPU: the curve is fetched every few steps, when a state is saved, and at the end."""
    monkeypatch.setattr(Runtime, "lag", 4)
    monkeypatch.setattr(Runtime, "fits", lambda self, size: size == 20 * 64)
    unlearned(tmp_path / "m")
    assert result(tmp_path / "m") == uninterrupted
    assert forked(lambda: unlearned(tmp_path / "n"), step=5, number=signal.SIGTERM) == 143
    unlearned(tmp_path / "n", resume=True)
    assert result(tmp_path / "n") == uninterrupted


def exploding(monkeypatch: pytest.MonkeyPatch, *calls: int) -> None:
    """The retain loss of some calls, counted in this process from 1, is no number."""
    real, seen = Denoising.__call__, []

    def explode(self: Denoising, half: Any) -> Any:
        seen.append(None)
        return real(self, half) * (math.nan if len(seen) in calls else 1)

    monkeypatch.setattr(Denoising, "__call__", explode)


def test_a_run_that_explodes_goes_on_once_from_its_good_weights(tmp_path: Path, monkeypatch, capsys) -> None:
    """At half the learning rate, with fresh moments. Nothing is good yet here but the parent's weights."""
    update, rates = training.update, []

    def moved(state: State, *given: Any) -> None:
        update(state, *given)
        rates.append(state.optimizers["optimizer"].param_groups[0]["lr"])

    monkeypatch.setattr(training, "update", moved)
    exploding(monkeypatch, 6)
    child = unlearned(tmp_path / "m")
    assert child.record["status"] == FINISHED.to_dict() and child.record["recovered"] == 6
    assert "redirect diverged at step 6: retain loss nan; going on from the last good" in capsys.readouterr().err
    assert rates == [SHORT.rate(step) * (0.5 if step >= 5 else 1) for step in range(STEPS)]
    log = read_log(tmp_path / "m")
    assert [line["step"] for line in log] == [*range(1, STEPS + 1)]
    monkeypatch.setattr(TrainSettings, "rate", lambda *given: 0.0)
    still = unlearned(tmp_path / "still")
    assert log[5]["retain"] == read_log(tmp_path / "still")[5]["retain"]
    assert weights_sha256(still.network) == still.record["parent"]["weights_sha256"]


@pytest.mark.parametrize("step", [3, 5, 7])
def test_a_run_that_recovered_continues_bit_for_bit(step: int, tmp_path: Path, monkeypatch) -> None:
    whole, folder = tmp_path / "whole", tmp_path / "m"
    with monkeypatch.context() as patch:
        exploding(patch, 6)
        unlearned(whole)
    with monkeypatch.context() as patch:
        exploding(patch, 6)
        assert forked(lambda: unlearned(folder), step=step, number=signal.SIGTERM) == 143
    with monkeypatch.context() as patch:
        exploding(patch, 6 - step)  # none where the child came past it
        unlearned(folder, resume=True)
    assert result(folder) == result(whole)


def test_a_run_that_explodes_again_ends(tmp_path: Path, monkeypatch) -> None:
    exploding(monkeypatch, 6, 9)
    with pytest.raises(Diverged, match=r"redirect diverged at step 8: .* last good weights"):
        unlearned(tmp_path / "m")
    record = json.loads((tmp_path / "m" / RECORD).read_text())
    assert record["status"] == diverged(8).to_dict() and record["recovered"] == 6
    assert record["weights_sha256"] == record["parent"]["weights_sha256"]


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_weights_of_half_precision_are_refused(kind: torch.dtype) -> None:
    with pytest.raises(UserError, match=f"weights are {str(kind)[6:]}, .*use .float"):
        unlearned(None, parent=tiny_model().to(kind))
    assert unlearned(None, parent=tiny_model().to(kind).float()).record["status"] == FINISHED.to_dict()


def test_a_loss_without_a_floor_is_not_tried_again(tmp_path: Path, monkeypatch) -> None:
    exploding(monkeypatch, 6)
    with pytest.raises(Diverged, match="neggrad diverged at step 6"):
        unlearned(tmp_path / "m", method=methods.neggrad())


def test_a_full_disk_leaves_the_saved_state(uninterrupted, tmp_path: Path, monkeypatch) -> None:
    folder, real, calls = tmp_path / "m", os.fsync, []

    def fsync(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 7:  # the identity and the log's start; the log so far, the first state: with their folder
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(storage.os, "fsync", fsync)
    with pytest.raises(OSError, match="No space"):
        unlearned(folder)
    monkeypatch.undo()
    assert sorted(p.name for p in folder.iterdir()) == [LOG, STATE, IDENTITY]
    unlearned(folder, resume=True)
    assert result(folder) == uninterrupted


def command(out: Path, *more: str) -> list[str]:
    options = "train --steps 14 --batch 4 --warmup 4 --save-every 3 --threads 1 --seed 2 --device cpu --out"
    return [*options.split(), str(out), *more]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "m"
    cli.main(command(folder))
    return result(folder)


@pytest.mark.parametrize(
    ("step", "number"), [(2, signal.SIGKILL), (8, signal.SIGKILL), (11, signal.SIGINT), (5, signal.SIGTERM)]
)
def test_a_stopped_training_continues_bit_for_bit(step: int, number: int, trained, tmp_path: Path, capfd) -> None:
    folder = tmp_path / "m"
    status = forked(lambda: cli.main(command(folder)), step=step, number=number)
    if number != signal.SIGKILL:
        assert status == 128 + number
        said = capfd.readouterr().err
        assert f"msgm: interrupted after step {step} of 14; its state is in " in said
        assert "; the same command with --resume goes on" in said
    cli.main(command(folder, "--resume"))
    assert result(folder) == trained


def test_ctrl_c_in_a_process_of_its_own(trained, tmp_path: Path) -> None:
    folder = tmp_path / "m"

    def listening() -> None:
        # A shell's background job, these tests too perhaps, starts with SIGINT ignored.
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    arguments = [sys.executable, "-m", "msgm", *command(folder)]
    process = subprocess.Popen(
        arguments, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=listening
    )
    while not (folder / LOG).exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 130, errors
    assert "msgm: interrupted" in errors and "Traceback" not in errors
    cli.main(command(folder, "--resume"))
    assert result(folder) == trained


@dataclass(frozen=True, kw_only=True)
class Stopping(Denoising):
    """Presses Ctrl-C at its fourth batch."""

    def __call__(self, batch) -> torch.Tensor:
        CALLS.append(None)
        if len(CALLS) == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return super().__call__(batch)


CALLS: list[None] = []


def stopped(folder: Path, **options: Any) -> None:
    CALLS.clear()
    method = replace(methods.redirect(), retain=Stopping())
    with pytest.raises(Interrupted, match=f"after step 4 of {STEPS}; its state is in "):
        unlearned(folder, method=method, **options)


def test_ctrl_c_finishes_the_step_and_gives_the_signal_back(uninterrupted, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    stopped(tmp_path / "m")
    assert signal.getsignal(signal.SIGINT) is before
    # Stopping() records as Denoising() does: a subclass of the same settings.
    unlearned(tmp_path / "m", resume=True, command="another")
    assert result(tmp_path / "m") == uninterrupted


@pytest.fixture(scope="module")
def halfway(tmp_path_factory) -> Path:
    """The folder of a run that was stopped after step 4."""
    folder: Path = tmp_path_factory.mktemp("halfway") / "m"
    stopped(folder)
    return folder


def changed(model: ScoreModel) -> ScoreModel:
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1e-6
    return model


OTHER: dict[str, tuple[dict[str, Any], str]] = {
    "settings": ({"settings": replace(SHORT, lr=1e-3)}, "settings.lr was 0.0008, is 0.001"),
    "seed": ({"settings": replace(SHORT, seed=6)}, "settings.seed was 5, is 6"),
    "steps": ({"settings": replace(SHORT, steps=STEPS + 1)}, "settings.steps was 9, is 10 .*longer run is another run"),
    "method": ({"method": methods.redirect(alpha=0.55)}, "method.combine.alpha was 0.7, is 0.55"),
    "parent": ({"parent": changed(tiny_model())}, "parent.weights_sha256 was"),
    "process": ({"parent": tiny_model(VPSDE())}, "model.sde.kind was ve, is vp"),
    "prediction": ({"parent": tiny_model(precondition=Noise())}, "model.prediction was edm, is noise"),
    "precision": ({"precision": "bf16"}, "runtime.precision was fp32, is bf16"),
}


@pytest.mark.parametrize("name", OTHER)
def test_resume_with_something_else_is_refused(name: str, halfway: Path) -> None:
    before = {p.name: p.read_bytes() for p in halfway.iterdir()}
    options, said = OTHER[name]
    with pytest.raises(UserError, match=f"other settings, data or parent: .*{said}"):
        unlearned(halfway, resume=True, **options)
    assert {p.name: p.read_bytes() for p in halfway.iterdir()} == before


def test_resume_with_other_threads_is_refused(halfway: Path, monkeypatch) -> None:
    there = torch.get_num_threads()
    monkeypatch.setattr(torch, "get_num_threads", lambda: there + 1)
    with pytest.raises(UserError, match=f"runtime.threads was {there}, is {there + 1}"):
        unlearned(halfway, resume=True)


def test_resume_with_other_data_is_refused(halfway: Path) -> None:
    for split in (ForgetRequest("label == 0").split(tiny_data()), ForgetRequest("label == 1").split(tiny_data(seed=1))):
        with pytest.raises(UserError, match="other settings, data"):
            unlearn(tiny_model(), split, settings=SHORT, run=quiet(halfway, resume=True))


def test_a_broken_state_is_named(halfway: Path, tmp_path: Path) -> None:
    shutil.copytree(halfway, tmp_path / "m")
    state = tmp_path / "m" / STATE
    state.write_bytes(state.read_bytes()[:-10])
    with pytest.raises(UserError, match=STATE):
        unlearned(tmp_path / "m", resume=True)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"run": torch.tensor([1e9, 0.1, 0.1, 0], dtype=torch.float64)}, r"step 1e\+09 of "),
        ({"run": torch.tensor([-1, 0.1, 0.1, 0], dtype=torch.float64)}, "step -1 of"),
        ({"run": torch.full((4,), math.nan, dtype=torch.float64)}, "NaN"),
        ({"run": torch.zeros(0)}, "not enough values"),
        ({"optimizer.0.exp_avg": None, "optimizer.0.exp_avg_sq": None, "optimizer.0.step": None}, "no moments"),
        ({"model.network.conv_in.bias": torch.full((8,), math.nan)}, "not finite"),
        ({"average.network.conv_in.bias": None}, "Missing key"),
        ({"good": torch.zeros(3)}, "must match"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_state_that_cannot_be_is_named(changed: dict, said: str, halfway: Path, tmp_path: Path) -> None:
    shutil.copytree(halfway, tmp_path / "m")
    tensors = {**read_tensors(tmp_path / "m" / STATE), **changed}
    write_tensors(tmp_path / "m" / STATE, {key: value for key, value in tensors.items() if value is not None})
    before = (tmp_path / "m" / STATE).read_bytes()
    with pytest.raises(UserError, match=f"{STATE} is no state of this run .*{said}"):
        unlearned(tmp_path / "m", resume=True)
    assert (tmp_path / "m" / STATE).read_bytes() == before


def test_a_state_that_holds_nothing_but_whose_it_is_is_named(halfway: Path, tmp_path: Path) -> None:
    shutil.copytree(halfway, tmp_path / "m")
    write_tensors(tmp_path / "m" / STATE, {"identity": read_tensors(tmp_path / "m" / STATE)["identity"]})
    with pytest.raises(UserError, match=f"{STATE} is no state of this run "):
        unlearned(tmp_path / "m", resume=True)


def test_a_finished_or_foreign_folder_is_refused(tmp_path: Path) -> None:
    unlearned(tmp_path / "m", replace(SHORT, steps=1))
    before = (tmp_path / "m" / RECORD).read_bytes()
    with pytest.raises(UserError, match="finished"):
        unlearned(tmp_path / "m", replace(SHORT, steps=1), resume=True)
    with pytest.raises(UserError, match="already exists"):
        unlearned(tmp_path / "m")
    assert (tmp_path / "m" / RECORD).read_bytes() == before
    unlearned(tmp_path / "m", replace(SHORT, steps=2), overwrite=True)
    assert len(read_log(tmp_path / "m")) == 2 and load(tmp_path / "m").record["settings"]["steps"] == 2
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file"):
        unlearned(tmp_path / "file")


def test_images_of_another_shape_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\(1, 8, 8\).*\(1, 4, 4\)"):
        unlearn(tiny_model(), tiny_split(size=4), settings=SHORT, run=quiet(tmp_path / "m"))
    assert not (tmp_path / "m").exists()


def test_a_network_that_cannot_be_saved_is_refused_before_training(tmp_path: Path) -> None:
    model = ScoreModel(torch.nn.Identity(), VPSDE(), shape=(1, 8, 8))
    with pytest.raises(UserError, match="Identity"):
        train(model, tiny_data(), run=quiet(tmp_path / "m"))
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 0},
        {"batch": 0},
        {"save_every": 0},
        {"lr": 0.0},
        {"lr": math.nan},
        {"ema": 1.0},
        {"guard": math.inf},
        {"seed": 2**70},
        {"seed": -1},
        {"steps": 10**12},
        {"batch": 10**7},
        {"warmup": -5},
        {"cooldown": -1.0},
        {"cooldown": math.nan},
        {"weight_decay": -1.0},
        {"noise_mean": math.inf},
        {"lr": 1e9},
    ],
    ids=str,
)
def test_settings_out_of_range(options) -> None:
    with pytest.raises(UserError, match=next(iter(options))):
        TrainSettings(**options)


def test_the_given_model_is_untouched(tmp_path: Path) -> None:
    parent = tiny_model().eval()
    before, flags = copy.deepcopy(parent.state_dict()), [p.requires_grad for p in parent.parameters()]
    child = unlearned(tmp_path / "m", parent=parent)
    assert all(torch.equal(v, before[k]) for k, v in parent.state_dict().items())
    assert not parent.training and parent.record == {} and [p.requires_grad for p in parent.parameters()] == flags
    assert all(p.grad is None for p in parent.parameters())
    assert child is not parent and not child.training and all(p.requires_grad for p in child.parameters())
    assert all(not torch.equal(a, b) for a, b in zip(child.parameters(), parent.parameters(), strict=True))
    # What is returned is what was saved.
    saved = load(tmp_path / "m")
    assert all(torch.equal(v, saved.state_dict()[k]) for k, v in child.state_dict().items())


def retain_error(model: ScoreModel) -> float:
    generator = torch.Generator().manual_seed(8)
    x0 = tiny_split().retain.rows().float() / 128 - 1
    eps, t = torch.randn(x0.shape, generator=generator), torch.linspace(0.2, 0.9, len(x0))
    with torch.no_grad():
        return float((model.eval().noise(model.sde.marginal(x0, t, eps), t) - eps).square().mean())


def test_the_average_of_the_weights(monkeypatch) -> None:
    """It follows the recursion from the parent on, and says what the live weights say."""
    parent, live = tiny_model(), []
    settings = replace(SHORT, steps=40, lr=3e-3, ema=0.8)
    follow = training.follow
    monkeypatch.setattr(training, "follow", lambda a, m, d: (follow(a, m, d), live.append(m.clone()))[0])
    child = unlearned(None, settings, parent=parent)
    monkeypatch.undo()
    last = unlearned(None, replace(settings, ema=0.0), parent=parent)  # the average is the live weights
    average = _flat(parent)
    for k, weights in enumerate(live):
        decay = min(0.8, (1 + k) / (10 + k))
        average = decay * average + (1 - decay) * weights
    torch.testing.assert_close(_flat(child), average, rtol=1e-4, atol=1e-6)
    assert torch.equal(_flat(last), live[-1])
    moved = (_flat(last) - _flat(parent)).norm()
    assert (_flat(child) - _flat(last)).norm() < 0.5 * moved
    before, now, averaged = retain_error(parent), retain_error(last), retain_error(child)
    assert now < 0.9 * before and averaged < 0.9 * before
    assert averaged == pytest.approx(now, rel=0.15)


def _flat(model: ScoreModel) -> torch.Tensor:
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


def test_training_is_in_place_and_learns() -> None:
    model = tiny_model(dropout=0.0)
    before = retain_error(model)
    settings = TrainSettings(steps=60, batch=8, warmup=5, lr=3e-3, ema=0.9)
    trained = train(model, tiny_data(), settings=settings, run=quiet())
    assert trained is not model
    assert retain_error(trained) < 0.8 * before and retain_error(model) < 0.8 * before


def test_the_record(tmp_path: Path) -> None:
    save(tiny_model(), tmp_path / "parent")
    parent, split = load(tmp_path / "parent"), tiny_split()
    parent.record["kind"] = "trained"
    unlearned(tmp_path / "m", parent=parent, command="msgm unlearn x")
    record = load(tmp_path / "m").record
    assert record["parent"] == {"weights_sha256": weights_sha256(parent.network), "kind": "trained"}
    assert record["weights_sha256"] == weights_sha256(load(tmp_path / "m").network)
    assert (
        record["kind"] == "unlearned"
        and record["status"] == FINISHED.to_dict()
        and record["command"] == "msgm unlearn x"
    )
    assert record["request"] == split.to_dict() == {"rule": "label == 1", "retain": 20, "forget": 20}
    assert record["data"] == {"name": "halves", "sha256": tiny_data().digest, "images": 40}
    assert record["method"] == methods.redirect().to_dict()
    assert record["settings"] == {**vars(SHORT)} and record["seed"] == 5
    assert set(record["versions"]) == {"msgm", "torch", "diffusers"}
    assert record["versions"]["torch"] == torch.__version__

    settings = TrainSettings(steps=1, batch=4)
    train(tiny_model(), tiny_data(), settings=settings, run=quiet(tmp_path / "t"))
    record = load(tmp_path / "t").record
    assert record["kind"] == "trained" and "parent" not in record and "request" not in record
    assert record["data"] == {"name": "halves", "sha256": tiny_data().digest, "images": 40}
    assert record["method"] == methods.standard().to_dict()


def good_parent() -> ScoreModel:
    settings = TrainSettings(steps=60, batch=8, warmup=5, lr=3e-3, ema=0.9)
    return train(tiny_model(dropout=0.0), tiny_data(), settings=settings, run=quiet())


def test_the_guard_stops_unbounded_obtuse(tmp_path: Path) -> None:
    parent = good_parent()
    method = methods.obtuse(form="literal", alpha=0.02, every=1)
    settings = replace(SHORT, steps=400, lr=3e-2, clip=100.0)
    with pytest.raises(Diverged, match=r"obtuse diverged at step \d+") as caught:
        unlearned(tmp_path / "m", settings, parent=parent, method=method)
    kept = load(tmp_path / "m")
    step = len(read_log(tmp_path / "m")) + 1
    assert kept.record["status"] == diverged(step).to_dict() and 10 < step < 400
    assert all(bool(torch.isfinite(p).all()) for p in kept.parameters())
    assert weights_sha256(caught.value.model.network) == weights_sha256(kept.network)
    assert retain_error(kept) < 3 * retain_error(parent)  # good, not only finite
    assert not (tmp_path / "m" / STATE).exists()
    with pytest.raises(UserError, match="nothing to resume"):
        unlearned(tmp_path / "m", settings, parent=parent, method=method, resume=True)


@dataclass(frozen=True, kw_only=True)
class Doubling(Denoising):
    """Says that the loss doubles with every step from the 47th on."""

    def __call__(self, batch) -> torch.Tensor:
        CALLS.append(None)
        loss = super().__call__(batch)
        return loss + (2.0 ** max(0, len(CALLS) - 46) - loss).detach()


@pytest.mark.parametrize("lag", [1, 10])
def test_weights_kept_are_from_before_the_explosion(lag: int, tmp_path: Path, monkeypatch) -> None:
    """They are copied every 50 steps, and step 50 is already on the way up: the parent's are the last good ones.

    The run goes on from them, and the loss goes on doubling: the same step is bad again.
    """
    CALLS.clear()
    monkeypatch.setattr(Runtime, "lag", lag)
    parent = tiny_model(dropout=0.0)
    with pytest.raises(Diverged, match="step 51: retain loss 64, lowest 1"):
        unlearned(
            tmp_path / "m", replace(SHORT, steps=60), parent=parent, method=replace(methods.unseen(), retain=Doubling())
        )
    assert weights_sha256(load(tmp_path / "m").network) == weights_sha256(parent.network)
    assert len(read_log(tmp_path / "m")) == 50


@dataclass(frozen=True, kw_only=True)
class Breaking(Denoising):
    """Is not a number from its seventh batch on."""

    value: float = math.nan

    def __call__(self, batch) -> torch.Tensor:
        CALLS.append(None)
        return super().__call__(batch) * (self.value if len(CALLS) > 6 else 1)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_at_once(value: float, tmp_path: Path) -> None:
    CALLS.clear()
    method = replace(methods.unseen(), retain=Breaking(value=value))
    method_record = replace(method, retain=Denoising()).to_dict()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(method), "to_dict", lambda self: method_record)  # JSON has no such number
        with pytest.raises(Diverged, match="step 7"):
            unlearned(tmp_path / "m", method=method)
    kept = load(tmp_path / "m")
    assert kept.record["status"] == {"kind": "diverged", "step": 7, "reason": ""} and len(read_log(tmp_path / "m")) == 6
    assert all(bool(torch.isfinite(p).all()) for p in kept.parameters())


def test_learning_rates() -> None:
    settings = TrainSettings(steps=100, lr=1.0, warmup=10, cooldown=0.4)
    rates = [settings.rate(k) for k in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == rates[59] == 1 and rates[80] == pytest.approx(0.5)
    assert rates[99] == pytest.approx(0.05)
    flat = replace(settings, cooldown=0.0)
    assert [flat.rate(k) for k in (0, 50, 99)] == [pytest.approx(0.1), 1, 1]


def test_device_of_a_second_run() -> None:
    """Runs of one process may ask for different devices; one that is not there is an error."""
    for device in ("cpu", "auto", "cpu"):
        unlearned(None, replace(SHORT, steps=1), device=device)
    with pytest.raises(UserError, match="device"):
        unlearned(None, replace(SHORT, steps=1), device="abacus")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="cuda"):
            unlearned(None, replace(SHORT, steps=1), device="cuda")
