"""Regularisers: masks that bite bit for bit, penalties with their formula's gradient, Fisher against a closed form."""

from dataclasses import replace

import pytest
import torch
from tiny import PLANE, plane_model, quiet
from torch import nn

from msgm.errors import UserError
from msgm.forgetting import methods
from msgm.forgetting.batch import Start
from msgm.forgetting.methods import Method
from msgm.forgetting.prepare import fine_tuned, fisher
from msgm.forgetting.regularise import Elastic, FisherRatio, Mask, Posterior, Pull, Saliency
from msgm.forgetting.terms import Ascent, Denoising
from msgm.model.score import ScoreModel
from msgm.model.vectors import flat, flatten, gradient
from msgm.process.sde import VESDE
from msgm.process.times import UniformClock
from msgm.training.loop import train, unlearn
from msgm.training.settings import TrainSettings, UnlearnSettings


def start(model: ScoreModel, seed: int = 0, batch: int = 16) -> Start:
    generator = torch.Generator().manual_seed(seed)
    return Start(
        model=model, retain=PLANE.retain.rows(), forget=PLANE.forget.rows(), clock=UniformClock(), batch=batch,
        generator=generator,
    )  # fmt: skip


def test_flat_weights_go_back_where_they_came_from() -> None:
    a, b = plane_model(VESDE(), seed=1), plane_model(VESDE(), seed=2)
    flatten(b).copy_(flat(a))
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    loss = sum(p.square().sum() for p in a.parameters()) / 2
    torch.testing.assert_close(gradient(a, loss), flat(a))  # type: ignore[arg-type]


def run(method: Method, parent: ScoreModel, **more) -> ScoreModel:
    """50 steps of AdamW with weight decay; no average, so that the live weights are seen."""
    settings = UnlearnSettings(steps=50, batch=8, lr=3e-3, weight_decay=0.1, ema=0.0, **more)
    return unlearn(parent, PLANE, method=method, settings=settings, run=quiet())


@pytest.mark.parametrize("form", ["uniform", "ascent", "redirect"])
def test_saluns_mask_bites(form: methods.Target) -> None:
    parent = plane_model(VESDE())
    before, after = flat(parent), flat(run(methods.salun(form=form, keep=0.3), parent))
    kept = (before == after) & (before.signbit() == after.signbit())
    # Weights whose gradient is 0 may stay as well; of all others just the chosen 30 % move.
    assert 0.25 * len(kept) < int((~kept).sum()) <= round(0.3 * len(kept))
    free = flat(run(replace(methods.salun(form=form), regularise=None), parent))
    assert float((free == before).float().mean()) < 0.01


def test_saliency_chooses_the_largest_gradients() -> None:
    model, term = plane_model(VESDE()), Ascent(form="bounded")
    mask = Saliency(keep=0.4, batches=5).prepare(start(model), term)
    given, total = start(model), torch.zeros_like(flat(model))
    for _ in range(min(5, -(-len(given.forget) // 16))):
        total += gradient(given.model, term(given.noised(given.model, given.forget, 16), given.retain))
    assert float(total[mask.free].abs().min()) >= float(total[~mask.free].abs().max())
    assert int(mask.free.sum()) == round(0.4 * len(total)) and mask.always
    torch.testing.assert_close(mask.before, flat(model))


def test_sfrons_mask_spares_weights_from_the_forget_loss_alone() -> None:
    free = torch.tensor([True, False])
    mask = Mask(free=free, before=torch.zeros(2), always=False)
    direction, weights = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])
    assert mask.direction(direction, weights, True).tolist() == [1, 0]
    assert mask.direction(direction, weights, False).tolist() == [1, 2]
    assert mask.weights(weights) is weights
    # Where every step is one of forgetting and nothing decays, what is spared stays.
    parent = plane_model(VESDE())
    method = replace(methods.sfron(samples=16), combine=methods.neggrad().combine)
    settings = UnlearnSettings(steps=50, batch=8, ema=0.0, guard=1e9)
    after = flat(unlearn(parent, PLANE, method=method, settings=settings, run=quiet()))
    still = float((after == flat(parent)).float().mean())
    assert 0.02 < still < 0.98
    mask = FisherRatio(threshold=0.0, samples=2).prepare(start(parent), Ascent())
    assert bool(mask.free.all())


class Shift(nn.Module):
    """Says the vector ``theta`` whatever it is shown: grad of mean (theta - eps)^2 is 2 (theta - eps) / d."""

    def __init__(self, theta: torch.Tensor) -> None:
        super().__init__()
        self.theta = nn.Parameter(theta)

    def forward(self, x: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return self.theta.expand_as(x)


def test_fisher_is_the_mean_square_of_single_images_gradients() -> None:
    """d E[(2 (theta - eps) / d)^2] = 4 (theta^2 + 1) / d; the gradient of a batch's mean would give less."""
    theta = torch.tensor([0.0, 1.5])
    model = ScoreModel(Shift(theta), VESDE(), shape=(2,), prediction="noise")
    n = 4000
    found = fisher(start(model), PLANE.retain.rows(), n, "")
    expected = 4 * (theta**2 + 1) / 2
    # Standard deviation of (theta - eps)^2: sqrt(2 + 4 theta^2).
    error = 2 * (2 + 4 * theta**2).sqrt() / n**0.5
    assert bool(((found - expected).abs() < 4 * error).all())


def test_elastic_pull_is_the_gradient_of_its_penalty() -> None:
    model = plane_model(VESDE())
    pull = Elastic(weight=3.0, samples=8).prepare(start(model), Ascent())
    importance = pull.stiffness / 6
    assert float(importance.min()) >= 0 < float(importance.max())
    theta = (flat(model) + 0.1).requires_grad_()
    (expected,) = torch.autograd.grad(3.0 * (importance * (theta - flat(model)).square()).sum(), theta)
    found = pull.direction(torch.ones_like(theta), theta.detach(), True) - 1
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert pull.weights(theta) is theta


def test_a_stiffer_pull_keeps_the_weights_nearer() -> None:
    fitted = TrainSettings(steps=60, batch=16, lr=3e-3, warmup=5)
    parent = train(plane_model(VESDE()), PLANE.retain, run=quiet(), settings=fitted)

    def moved(weight: float) -> float:
        method = methods.selective_amnesia(weight=weight, samples=16)
        return float((flat(run(method, parent)) - flat(parent)).norm())

    assert moved(1e5) < 0.7 * moved(0.0)


def test_the_posteriors_mean_and_variance_are_those_of_its_checkpoints() -> None:
    model, part = plane_model(VESDE()), Posterior(weight=2.0, checkpoints=4, gap=3, lr=1e-3, floor=0.01)
    pull = part.prepare(start(model), Ascent())
    given, kept = start(model), []
    path = fine_tuned(given, torch.cat([given.retain, given.forget]), steps=12, lr=1e-3, title="")
    for k, moving in enumerate(path):
        if k in (2, 5, 8, 11):
            kept.append(flat(moving))
    stacked = torch.stack(kept)
    torch.testing.assert_close(pull.centre, stacked.mean(0))
    variance = stacked.var(0)
    floored = torch.maximum(variance, 0.01 * variance.mean())
    # 2 / (M d) (theta - mu)^2 / (2 v), M d numbers in the forget set.
    theta = (flat(model) + 0.01).requires_grad_()
    penalty = 2.0 * 2 / given.forget.numel() * ((theta - stacked.mean(0)).square() / (2 * floored)).sum()
    (expected,) = torch.autograd.grad(penalty, theta)
    found = pull.direction(torch.zeros_like(theta), theta.detach(), True)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert torch.equal(flat(model), flat(plane_model(VESDE())))  # the given model is as it was


def test_a_mask_freezes_under_every_combiner_that_looks_twice() -> None:
    """EraseDiff's inner steps move all weights and put them back."""
    parent = plane_model(VESDE())
    method = replace(methods.salun(keep=0.5), combine=methods.erasediff(inner=2).combine)
    before, after = flat(parent), flat(run(method, parent))
    # Of an odd number of weights the larger half moves.
    assert len(before) // 2 <= int((before == after).sum()) < 0.55 * len(before)


def test_ascent_has_no_optimum_but_the_penalty_gives_it_one() -> None:
    """min -(theta - a)^2 + s (theta - c)^2 / 2 has theta = (s c - 2 a) / (s - 2): descent with the pull finds it."""
    a, c, s = torch.tensor([0.3]), torch.tensor([-0.2]), torch.tensor([6.0])
    pull, theta = Pull(centre=c, stiffness=s), torch.tensor([1.0])
    for _ in range(200):
        theta = theta - 0.1 * pull.direction(-2 * (theta - a), theta, True)
    torch.testing.assert_close(theta, (s * c - 2 * a) / (s - 2))


@pytest.mark.parametrize(
    ("made", "name"),
    [
        (lambda: Saliency(keep=0.0), "keep"),
        (lambda: FisherRatio(samples=0), "samples"),
        (lambda: Elastic(weight=-1.0), "weight"),
        (lambda: Posterior(checkpoints=1), "checkpoints"),
        (lambda: Posterior(floor=0.0), "floor"),
        (lambda: replace(methods.salun(), combine=replace(methods.orthogonal().combine, separate=True)), "separate"),
    ],
)
def test_settings_out_of_range(made, name: str) -> None:
    with pytest.raises(UserError, match=name):
        made()


def test_a_model_that_was_never_trained_is_said_to_be_so() -> None:
    model = plane_model(VESDE())
    flatten(model).fill_(torch.inf)
    with pytest.raises(UserError, match="not finite"):
        fisher(start(model), PLANE.retain.rows(), 1, "Fisher")
    assert isinstance(Denoising()(start(model).noised(model, PLANE.retain.rows(), 2)), torch.Tensor)
