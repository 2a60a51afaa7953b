"""Losses that a tracker is told are those of log.jsonl."""

import json
from pathlib import Path

import pytest
from tiny import quiet, tiny_data, tiny_model

import msgm
from msgm.errors import UserError
from msgm.training.runs import read_log
from msgm.training.settings import TrainSettings

pytest.importorskip("tensorboard", reason="the extra log is not installed")


def test_tensorboard_has_every_loss_and_the_settings(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = quiet(tmp_path / "run", log_with="tensorboard")
    msgm.train(tiny_model(), tiny_data(), settings=TrainSettings(steps=5, batch=4), run=run)
    found = EventAccumulator(str(tmp_path / "run/tensorboard")).Reload()
    lines = read_log(tmp_path / "run")
    told = [(event.step, event.value) for event in found.Scalars("retain")]
    assert told == [(line["step"], pytest.approx(line["retain"])) for line in lines]
    assert {"retain", "norm"} <= set(found.Tags()["scalars"]) and "forget" not in found.Tags()["scalars"]
    plain = quiet(tmp_path / "plain")
    msgm.train(tiny_model(), tiny_data(), settings=TrainSettings(steps=5, batch=4), run=plain)
    assert read_log(tmp_path / "plain") == lines
    assert not (tmp_path / "plain/tensorboard").exists()
    again = quiet(tmp_path / "run", overwrite=True)
    msgm.train(tiny_model(), tiny_data(), settings=TrainSettings(steps=2, batch=4), run=again)
    assert len(read_log(tmp_path / "run")) == 2


def test_a_tracker_that_is_not_there_is_named_before_any_work(tmp_path: Path) -> None:
    for name, said in (("wandb", "pip install wandb"), ("notebook", "choose tensorboard, wandb, trackio")):
        run = quiet(tmp_path / "run", log_with=name)
        with pytest.raises(UserError, match=said):
            msgm.train(tiny_model(), tiny_data(), settings=TrainSettings(steps=1, batch=4), run=run)
    with pytest.raises(UserError, match="the run has none"):
        run = quiet(log_with="tensorboard")
        msgm.train(tiny_model(), tiny_data(), settings=TrainSettings(steps=1, batch=4), run=run)
    assert not (tmp_path / "run").exists()


def test_the_settings_are_told(tmp_path: Path) -> None:
    run = quiet(tmp_path / "run", log_with="tensorboard")
    msgm.train(tiny_model(), tiny_data(), settings=TrainSettings(steps=1, batch=4, lr=0.002), run=run)
    (place,) = (tmp_path / "run/tensorboard").rglob("hparams.yml")
    written = place.read_text()
    assert "lr: 0.002" in written and json.loads((tmp_path / "run/run.json").read_text())
