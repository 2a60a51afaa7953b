"""Where the memory is full, work goes on with fewer images at a time, and finds the same."""

from pathlib import Path
from typing import Any

import pytest
import several
import torch
from tiny import quiet, tiny_data, tiny_model, tiny_split
from torch import Tensor, nn

from msgm.errors import UserError
from msgm.likelihood import log_likelihood
from msgm.model.memory import Halving
from msgm.sampling import Heun
from msgm.training.loop import unlearn
from msgm.training.objective import Batch, Objective
from msgm.training.runs import read_log
from msgm.training.settings import UnlearnSettings

SETTINGS = UnlearnSettings(steps=several.STEPS, batch=several.BATCH)


def test_what_fits_is_found_once(capsys: pytest.CaptureFixture[str]) -> None:
    seen = []

    def work(rows: range) -> int:
        seen.append(rows)
        if len(rows) > 3:
            raise torch.OutOfMemoryError
        return sum(rows)

    halving = Halving()
    assert halving(range(10, 20), work) == [21, 25, 29, 33, 37] and halving.limit == 2
    assert halving(range(3), work) == [1, 2]
    assert seen[:3] == [range(10, 20), range(10, 15), range(10, 12)] and len(seen) == 9
    assert capsys.readouterr().err.splitlines() == [
        "note: the memory is full with 10 images at a time: going on with 5",
        "note: the memory is full with 5 images at a time: going on with 2",
    ]
    assert Halving()(range(4), lambda rows: rows) == [range(4)]


def test_one_image_that_does_not_fit() -> None:
    def full(rows: range) -> None:
        raise torch.OutOfMemoryError

    with pytest.raises(UserError, match="full with one image"):
        Halving()(range(3), full)


@pytest.mark.parametrize("name", several.RUNS)
def test_a_batch_in_parts_is_the_same_batch(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, most = Objective.losses, []

    def losses(self: Objective, batch: Batch) -> tuple[Tensor, Tensor | None]:
        if batch.share.end - batch.share.first > 2:
            raise torch.OutOfMemoryError
        most.append(len(batch.x))
        return real(self, batch)

    def run(place: str) -> list[dict[str, Any]]:
        method = several.RUNS[name]
        unlearn(tiny_model(), tiny_split(), method=method, settings=SETTINGS, run=quiet(tmp_path / place))
        return read_log(tmp_path / place)

    whole = run("whole")
    monkeypatch.setattr(Objective, "losses", losses)
    # Five rows of each set: two, two and one.
    for a, b in zip(whole, run("parts"), strict=True):
        found, wanted = (torch.tensor([v for v in line.values() if v is not None]) for line in (b, a))
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
    assert max(most) == 4


class Small(nn.Module):
    """A network on a device that holds three images."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, t: Tensor) -> Any:
        if len(x) > 3:
            raise torch.OutOfMemoryError
        return self.network(x, t)


def test_samples_and_likelihoods_on_a_small_device() -> None:
    model = tiny_model().eval()
    images = tiny_data(7).rows()

    def found() -> tuple[Tensor, Tensor]:
        drawn = Heun(model, steps=3).sample(8, seed=1, batch=8, start=2)
        return drawn, log_likelihood(model, images, steps=2, check=4, batch=7).nats

    whole = found()
    model.network = Small(model.network)
    torch.testing.assert_close(found(), whole, rtol=1e-4, atol=1e-4)
