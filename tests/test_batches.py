"""Batches are functions of the step; vectors go through the same loop as images."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import quiet

from msgm.data import ForgetRequest, Images, Split
from msgm.errors import UserError
from msgm.forgetting import methods
from msgm.forgetting.combine import Weighted
from msgm.forgetting.methods import Method
from msgm.formats.native import load, weights_sha256
from msgm.model.networks import MLP
from msgm.model.score import ScoreModel
from msgm.process.sde import VESDE
from msgm.training.batches import Shuffled
from msgm.training.loop import Interrupted, train, unlearn
from msgm.training.runs import read_log
from msgm.training.settings import TrainSettings, UnlearnSettings

SHORT = UnlearnSettings(steps=8, batch=16, warmup=2, save_every=3, seed=5)


def points() -> Split:
    """Two clouds in the plane, of which one is to be forgotten."""
    label = torch.arange(60) % 2
    x = torch.randn(60, 2, generator=torch.Generator().manual_seed(0)) + 4 * label[:, None]
    return ForgetRequest("label == 1").split(Images.of(x, columns={"label": label}, name="clouds"))


def model() -> ScoreModel:
    torch.manual_seed(1)
    return ScoreModel(MLP(width=16, depth=1), VESDE(), shape=(2,), sigma_data=2.0)


def test_batches_are_whole_permutations() -> None:
    """Each image once an epoch, also where a batch spans epochs; a function of the step, in any order."""
    for size, batch in ((10, 4), (3, 8), (7, 7)):
        ahead = Shuffled(size, batch, seed=1)
        drawn = torch.cat([ahead(k) for k in range(size * 3)])
        for epoch in drawn.split(size):
            assert epoch.sort().values.tolist() == list(range(len(epoch))) or len(epoch) < size
        back = Shuffled(size, batch, seed=1)
        assert torch.equal(torch.cat([back(k) for k in reversed(range(size * 3))][::-1]), drawn)


APART = Method(
    name="orthogonal", forget=methods.orthogonal().forget, combine=Weighted(alpha=0.9, every=2, separate=True)
)


@pytest.mark.parametrize("method", [methods.erasediff(), methods.redirect(), APART], ids=lambda m: m.name)
def test_vectors_are_unlearned_and_a_stopped_run_continues_bit_for_bit(method, tmp_path: Path, monkeypatch) -> None:
    options = {"method": method, "settings": SHORT}
    whole = unlearn(model(), points(), run=quiet(tmp_path / "whole"), **options)
    with monkeypatch.context() as patch:
        # Ctrl-C is asked for from the fifth step on.
        calls: list[None] = []
        patch.setattr("msgm.training.loop.stopping", lambda: _Stopping(calls))
        with pytest.raises(Interrupted, match="after step 5 of 8"):
            unlearn(model(), points(), run=quiet(tmp_path / "parts"), **options)
    resumed = unlearn(model(), points(), run=quiet(tmp_path / "parts", resume=True), **options)
    assert weights_sha256(resumed.network) == weights_sha256(whole.network) != weights_sha256(model().network)
    assert read_log(tmp_path / "parts") == read_log(tmp_path / "whole")
    assert weights_sha256(load(tmp_path / "whole").network) == weights_sha256(whole.network)


class _Stopping:
    """Stands in for the loop's watch on Ctrl-C, which is pressed during the fifth step."""

    def __init__(self, calls: list[None]) -> None:
        self.calls = calls

    def __enter__(self):
        return lambda: self.calls.append(None) or len(self.calls) >= 5

    def __exit__(self, *error: object) -> None:
        pass


def test_a_separate_optimiser_makes_alpha_a_matter_of_clipping_only() -> None:
    """Adam's step does not depend on the scale of its gradient: far below the clip, alpha = .9 and .99 end alike."""
    weights = {}
    for separate in (True, False):
        for alpha in (0.9, 0.99):
            settings = replace(SHORT, clip=1e6, lr=1e-3)
            method = replace(APART, combine=Weighted(alpha=alpha, every=1, separate=separate))
            child = unlearn(model(), points(), method=method, settings=settings, run=quiet())
            weights[separate, alpha] = torch.cat([p.detach().flatten() for p in child.parameters()])
    moved = float((weights[False, 0.9] - weights[False, 0.99]).norm())
    # What is left is the epsilon in the denominator of the step.
    assert float((weights[True, 0.9] - weights[True, 0.99]).norm()) < 0.2 * moved


def test_training_on_vectors_learns() -> None:
    settings = TrainSettings(steps=80, batch=64, warmup=5, lr=3e-3, ema=0.9)
    trained = train(model(), points(), method=methods.unseen(), settings=settings, run=quiet())
    x, t = torch.zeros(1, 2), VESDE().time(torch.tensor(1.5).log())
    with torch.no_grad():
        # The retained cloud is N(0, I): the denoised origin is the origin, that of the forgotten one is not.
        assert trained.denoise(x, t).norm() < 0.5 < model().denoise(x, t).norm() + 0.5


def test_vectors_that_do_not_fit_are_refused() -> None:
    three = Images.of(torch.zeros(4, 3), name="three")
    assert three.shape == (3,)
    with pytest.raises(UserError, match=r"vectors of shape \(2,\), three has \(3,\)"):
        train(model(), three, run=quiet())
    with pytest.raises(UserError, match="three: vectors must be finite"):
        Images.of(torch.full((4, 3), torch.nan), name="three")
    with pytest.raises(UserError, match=r"flip .* images"):
        train(model(), points(), method=methods.unseen(), settings=replace(SHORT, flip=True), run=quiet())
