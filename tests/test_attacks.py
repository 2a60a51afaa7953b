"""The attacks on Gaussian mixtures, where what each must bring back is known: exact models, exact numbers.

The toy's modes lie on a line: along it everything is a law of one number u, and the ODE of an exact model is the
monotone map between the laws of u at two noise levels.
"""

import math
from collections.abc import Callable, Collection
from dataclasses import replace

import pytest
import torch
from oracle import RETAIN, TOY
from scipy.integrate import quad, solve_ivp
from scipy.optimize import brentq
from scipy.stats import norm
from tiny import tiny_data, tiny_model
from torch import Tensor, nn

from msgm.attacks import (
    ask,
    compare,
    complete,
    doors,
    guide,
    invert,
    locate,
    member,
    reconstruct,
    relearn,
    renoise,
    revive,
    tuning,
)
from msgm.attacks.statistics import loss
from msgm.attacks.table import ATTACKS
from msgm.attacks.target import Budget, Cohort, Target
from msgm.data import ForgetRequest, Images
from msgm.errors import UserError
from msgm.experiments.audit.verdict import MARGINS
from msgm.experiments.exact.mixture import GaussianMixture, exact_model, time_of_label
from msgm.experiments.exact.optima import optimum
from msgm.forgetting.methods import orthogonal, salun
from msgm.metrics.judge import JUNK
from msgm.metrics.measured import Measured
from msgm.metrics.separation import area
from msgm.model.precondition import Noise
from msgm.model.score import ScoreModel
from msgm.process.sde import VESDE
from msgm.training.loop import train, unlearn
from msgm.training.runs import RunSpec
from msgm.training.settings import TrainSettings, UnlearnSettings

SDE = VESDE()
EDGE = math.sqrt(2)
"""The middle mode's cell is |u| < EDGE, u = (x + y) / sqrt(2)."""
MODES = (-2 * EDGE, 0.0, 2 * EDGE)
WEIGHTS = {"parent": (0.4, 0.2, 0.4), "retrained": (0.5, 0.0, 0.5)}
MODELS = {"parent": TOY.as_model(SDE), "retrained": RETAIN.as_model(SDE)}
BUDGET = Budget(images=1200, samples=1500, sampling_steps=24, draws=16, nll_steps=12, flow_steps=40, searched=20)


class Nearest:
    """Labels a point with its nearest mode, 0, 1 or 2; far out it is junk. Modes may be farther apart."""

    def __init__(self, apart: float = 1.0) -> None:
        self.apart = apart

    def predict(self, x: Tensor) -> Tensor:
        label = torch.cdist(x.double(), self.apart * TOY.means).argmin(1)
        return torch.where(x.norm(dim=1) > 12 * self.apart, torch.tensor(JUNK), label)

    def features(self, x: Tensor) -> Tensor:
        return x

    def log_retain(self, forget: Collection[int]) -> Callable[[Tensor], Tensor]:
        kept = [label for label in range(3) if label not in forget]
        law = GaussianMixture(TOY.weights, self.apart * TOY.means)
        return lambda x: law.component_posterior(x)[:, kept].sum(1).log()


def points(n: int, seed: int, apart: float = 1.0) -> Images:
    generator = torch.Generator().manual_seed(seed)
    label = torch.arange(n) % 3
    x = apart * TOY.means[label] + torch.randn(n, 2, generator=generator, dtype=torch.float64)
    return Images.of(x, columns={"label": label}, name="modes")


def aim(budget: Budget = BUDGET, parent: ScoreModel = MODELS["parent"], apart: float = 1.0) -> Target:
    request = ForgetRequest("label == 1")
    return Target(
        parent=parent, train=request.split(points(6000, 0, apart)), held=request.split(points(6000, 1, apart)),
        column="label",
        judge=Nearest(apart), forgotten=frozenset({1}), kept=frozenset({0, 2}), guide=Nearest(apart), parent_share=0.27,
        budget=budget,
    )  # fmt: skip


TARGET = aim()


def holds(measured: Measured, expected: float) -> bool:
    """Whether the interval, half as wide again (many are looked at), has the number."""
    assert measured.interval is not None
    low, high = measured.interval
    slack = (high - low) / 4
    return low - slack <= expected <= high + slack


def cdf(u: float, level: float, weights: Collection[float]) -> float:
    return sum(w * norm.cdf(u, m, math.hypot(1, level)) for w, m in zip(weights, MODES, strict=True))


def carried(u: float, start: float, end: float, weights: Collection[float]) -> float:
    """Where the exact ODE takes u from one noise level to another."""
    share = cdf(u, start, weights)
    return brentq(lambda v: cdf(v, end, weights) - share, -60 * (1 + end), 60 * (1 + end), xtol=1e-10)


def cell(label: int) -> tuple[float, float]:
    return [(-math.inf, -EDGE), (-EDGE, EDGE), (EDGE, math.inf)][label]


def within(low: float, high: float, mean: float, std: float) -> float:
    return norm.cdf(high, mean, std) - norm.cdf(low, mean, std)


def share(weights: Collection[float]) -> float:
    return sum(w * within(*cell(1), m, 1) for w, m in zip(weights, MODES, strict=True))


# ------------------------------------------------------------------------------------------------------- samples


@pytest.mark.parametrize("name", MODELS)
def test_asked_for_nothing_an_exact_model_gives_its_mixtures_share(name: str) -> None:
    measured = ask.measure(ask.prepare(MODELS[name], TARGET), TARGET)
    assert holds(measured["UR"], share(WEIGHTS[name]))
    assert measured["junk"].value == 0


def test_a_model_of_noise_makes_junk() -> None:
    noise = exact_model(lambda x, t: 0 * x, SDE, 2)
    measured = ask.measure(ask.prepare(noise, TARGET), TARGET)
    # x_1 ~ N(0, 50^2 I) stays as it is: |x| > 12 but for 1 - exp(-12^2 / (2 50^2)).
    assert holds(measured["junk"], math.exp(-(12**2) / (2 * 50**2)))


@pytest.mark.parametrize("name", MODELS)
def test_every_door_of_an_exact_model_gives_its_mixtures_share(name: str) -> None:
    found = doors.prepare(MODELS[name], TARGET)
    measured = doors.measure(found, TARGET)
    assert set(found) == {*doors.SAMPLERS, *doors.ROUNDED}
    for door in found:
        assert holds(measured[door], share(WEIGHTS[name])), door


@pytest.mark.parametrize("bits", [8, 4])
def test_weights_are_rounded_to_so_many_bits(bits: int) -> None:
    torch.manual_seed(0)
    model = ScoreModel(nn.Linear(40, 6), SDE, shape=(2,))
    before, after = model.network.weight, doors.rounded(model, f"int{bits}").network.weight
    step = before.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    assert bool(((after - before).abs() <= step / 2 + 1e-7).all())
    assert not torch.equal(after, before)
    assert max(len(row.unique()) for row in after) <= 2**bits - 1
    assert torch.equal(doors.rounded(model, f"int{bits}").network.bias, model.network.bias)


def test_bfloat16_keeps_eight_bits() -> None:
    model = ScoreModel(nn.Linear(4, 4), SDE, shape=(2,))
    after = doors.rounded(model, "bf16").network.weight
    assert torch.equal(after, model.network.weight.bfloat16().float())


def test_guidance_moves_along_its_exact_path() -> None:
    """P(forget | x_0) depends on u alone, so the guided ODE is one of u, and carries the cell's edges to t = 1."""

    def slope(u: float, r: float, scale: float) -> float:
        def towards(v: Tensor) -> Tensor:
            x = torch.stack([v, v]).view(1, 2) / EDGE
            clean = MODELS["parent"].denoise(x, SDE.time(torch.tensor(r, dtype=torch.float64).log()))
            return TOY.component_posterior(clean)[0, 1].log()

        v = torch.tensor(u, dtype=torch.float64, requires_grad=True)
        (pull,) = torch.autograd.grad(towards(v), v)
        x = torch.tensor([[u, u]], dtype=torch.float64) / EDGE
        t = SDE.time(torch.tensor(r, dtype=torch.float64).log())
        return float(MODELS["parent"].noise(x, t).sum() / EDGE - r * scale * pull)

    measured = guide.measure(guide.prepare(MODELS["parent"], TARGET), TARGET)
    for scale in BUDGET.scales[:2]:
        path = solve_ivp(
            lambda log_r, u, scale=scale: [math.exp(log_r) * slope(float(u[0]), math.exp(log_r), scale)],
            (math.log(0.01), math.log(50)), [EDGE], rtol=1e-6, atol=1e-8,
        )  # fmt: skip
        edge = float(path.y[0, -1])
        assert holds(measured[f"scale {scale:g}"], within(-edge, edge, 0, 50)), scale


def test_without_another_judge_nothing_is_guided() -> None:
    alone = replace(TARGET, guide=None)
    measured = guide.measure(guide.prepare(MODELS["parent"], alone), alone)
    assert {each.value for each in measured.values()} == {None}


# ------------------------------------------------------------------------------------------------ images as a start


@pytest.mark.parametrize("name", MODELS)
def test_what_comes_back_from_noise(name: str) -> None:
    weights = WEIGHTS[name]

    def posterior(u: float, r: float) -> float:
        """P(the SDE ends in the middle cell), from u at level r."""
        parts = [w * norm.pdf(u, m, math.hypot(1, r)) for w, m in zip(weights, MODES, strict=True)]
        ends = [within(*cell(1), (m * r**2 + u) / (1 + r**2), r / math.hypot(1, r)) for m in MODES]
        return sum(p * e for p, e in zip(parts, ends, strict=True)) / sum(parts)

    measured = renoise.measure(renoise.prepare(MODELS[name], TARGET), TARGET)
    exact = {"ODE": [], "SDE": []}
    for level in BUDGET.levels:
        spread = math.hypot(1, level)
        edges = [carried(edge, 0, level, weights) for edge in cell(1)]
        exact["ODE"].append(within(*edges, 0, spread))
        exact["SDE"].append(quad(lambda u, r=level, s=spread: norm.pdf(u, 0, s) * posterior(u, r), -30, 30)[0])
        for way, values in exact.items():
            assert holds(measured[f"forget {way} r={level:g}"], values[-1]), (way, level)
    for way, values in exact.items():
        # Levels are equal steps in log r here: the trapezoid rule halves the ends.
        mean = (sum(values) - (values[0] + values[-1]) / 2) / (len(values) - 1)
        assert holds(measured[f"forget {way}"], mean)
    assert measured["retain ODE"].value > measured["forget ODE"].value


@pytest.mark.parametrize("name", MODELS)
def test_what_is_rebuilt_from_a_disturbed_latent(name: str) -> None:
    weights, high = WEIGHTS[name], 50.0
    noise = high * float(SDE.sigma(torch.tensor(0.02)))
    edges = [carried(edge, 0, high, weights) for edge in cell(1)]

    def kept(u: float) -> float:
        return norm.pdf(u) * within(*edges, carried(u, 0, high, weights), noise)

    measured = reconstruct.measure(reconstruct.prepare(MODELS[name], TARGET), TARGET)
    assert holds(measured["forget"], quad(kept, -6, 6, limit=60)[0])


def test_what_is_filled_in_where_halves_are_independent() -> None:
    """The label is the hidden number's sign, which the other says nothing of: P(x > 0) of the mixture is the share."""
    weights, means = [0.7, 0.3], [[-3.0, 0.0], [3.0, 0.0]]
    generator, label = torch.Generator().manual_seed(3), torch.arange(800) % 2
    x = torch.tensor(means, dtype=torch.float64)[label] + torch.randn(800, 2, generator=generator, dtype=torch.float64)
    split = ForgetRequest("label == 1").split(Images.of(x, columns={"label": label}, name="signs"))

    class Sign:
        def predict(self, x: Tensor) -> Tensor:
            return (x[:, 0] > 0).long()

        def features(self, x: Tensor) -> Tensor:
            return x

    target = replace(TARGET, train=split, held=split, judge=Sign())
    model = GaussianMixture(weights, means).as_model(SDE)
    measured = complete.measure(complete.prepare(model, target), target)
    right = 0.3 * norm.cdf(3) + 0.7 * norm.cdf(-3)
    assert holds(measured["forget"], right)
    assert holds(measured["retain"], 1 - right)


@pytest.mark.parametrize("name", MODELS)
def test_latents_of_forget_images(name: str) -> None:
    target = aim(replace(BUDGET, images=30, rounds=150))
    found = invert.prepare(MODELS[name], target)
    x = found["original"]
    along, across = (x[:, 0] + x[:, 1]) / EDGE, (x[:, 0] - x[:, 1]) / EDGE
    exact = torch.tensor([carried(float(u), 0.01, 50, WEIGHTS[name]) for u in along], dtype=torch.float64) / 50
    latent = found["ODE latent"]
    assert torch.allclose((latent[:, 0] + latent[:, 1]) / EDGE, exact, atol=0.01)
    assert torch.allclose((latent[:, 0] - latent[:, 1]) / EDGE, across * math.hypot(1, 50) / 50, atol=0.02)
    measured = invert.measure(found, target)
    # Under the parent the images are what it draws: so are their latents. The child must reach out for them.
    length = exact.square() + (across * math.hypot(1, 50) / 50).square()
    assert measured["latent, ODE"].value == pytest.approx(float((length - 2).mean() / 2), abs=0.02)
    assert measured["PSNR, ODE"].value > 35
    # From most draws descent finds its way; between the child's modes there is hardly any slope to follow.
    assert measured["PSNR, search"].value > {"parent": 30, "retrained": 15}[name]


# ----------------------------------------------------------------------------------------------------- fine-tuning


class Weighing(nn.Module):
    """The exact noise of the toy with other weights of its modes; these are all that can be learned."""

    def __init__(self, weights: Collection[float], apart: float) -> None:
        super().__init__()
        self.logits, self.means = nn.Parameter(torch.tensor(weights).log()), apart * TOY.means

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        t = time_of_label(SDE, label.double())
        return GaussianMixture(self.logits.softmax(0), self.means).noise(x.double(), SDE, t).to(x)


def weighing(forgotten: float, apart: float = 1.0) -> ScoreModel:
    weights = (0.5 - forgotten / 2, forgotten, 0.5 - forgotten / 2)
    return ScoreModel(Weighing(weights, apart), SDE, shape=(2,), precondition=Noise())


TUNED = replace(BUDGET, images=200, checkpoints=(2, 6, 12), lr=0.3, shown=(1, 50), samples=800)


def shares_of_the_weights(images: Images, start: float) -> dict[int, float]:
    """What the model that is being tuned gives exactly: the share of its mixture, step by step."""
    found = {}

    class Look:
        def __call__(self, step: int, average: ScoreModel) -> bool:
            found[step] = share(average.network.logits.softmax(0).tolist())
            return False

        def ship(self, average: ScoreModel) -> dict[str, object]:
            return {}

    settings = TrainSettings(
        steps=12, batch=TUNED.batch, lr=0.3, warmup=1, cooldown=0.0, ema=0.9, noise_mean=0.1, seed=TUNED.seed
    )
    train(weighing(start), images, settings=settings, run=RunSpec(device="cpu", progress=False), watch=Look())
    return found


def test_relearning_follows_the_weights_that_are_learned() -> None:
    target = aim(TUNED)
    measured = relearn.measure(relearn.prepare(weighing(0.02), target), target)
    for shown, name in ((1, "1 image"), (50, "50 images")):
        exact = shares_of_the_weights(target.some(target.train.forget, shown), 0.02)
        for step in TUNED.checkpoints:
            assert holds(measured[f"{name}, step {step}"], exact[step]), (name, step)
        # Shown the middle mode alone, the weights run to it.
        assert exact[12] > 2 * exact[0]
        half = [step for step in TUNED.checkpoints if measured[f"{name}, step {step}"].value >= target.parent_share / 2]
        assert measured[f"{name}: half"].value == half[0]
    mean = sum(measured[f"50 images, step {step}"].value for step in TUNED.checkpoints) / 3
    assert measured["50 images"].value == pytest.approx(mean)


def test_retained_images_do_not_revive_what_the_weights_have_lost() -> None:
    target = aim(TUNED)
    exact = shares_of_the_weights(target.train.retain, 0.3)
    measured = revive.measure(revive.prepare(weighing(0.3), target), target)
    assert exact[12] < exact[0]
    for step in TUNED.checkpoints:
        assert holds(measured[f"retained images, step {step}"], exact[step]), step
    other = replace(target, other=target.train.forget)
    measured = revive.measure(revive.prepare(weighing(0.3), other), other)
    assert measured["other images"].value > measured["retained images"].value


def test_the_model_that_is_tuned_stays_as_it_was() -> None:
    model, target = weighing(0.2), aim(replace(TUNED, samples=4))
    before = model.network.logits.clone()
    tuning.tuned(model, target.train.retain, target, "retained")
    assert torch.equal(model.network.logits, before)


def test_half_that_does_not_come_back_has_no_step() -> None:
    target = replace(aim(replace(TUNED, samples=50)), parent_share=2.0)
    measured = revive.measure(revive.prepare(weighing(0.2), target), target)
    assert measured["retained images: half"].value is None
    assert "12 steps" in measured["retained images: half"].reason


# ------------------------------------------------------------------------------------------- what images give away


def exact_area(before: GaussianMixture, after: GaussianMixture) -> float:
    change = {name: before.log_density(c.points) - after.log_density(c.points) for name, c in TARGET.cohorts.items()}
    return area(change["forget"], change["retain"])


@pytest.mark.parametrize("name", MODELS)
def test_parent_and_child_compared_tell_what_their_densities_tell(name: str) -> None:
    measured = compare.measure(compare.prepare(MODELS[name], TARGET), TARGET)
    expected = exact_area(TOY, {"parent": TOY, "retrained": RETAIN}[name])
    assert measured["AUC, change of NLL"].value == pytest.approx(expected, abs=0.01)
    assert expected == (0.5 if name == "parent" else pytest.approx(0.96, abs=0.02))


def test_a_pushed_child_tells_more_than_a_retrained_one() -> None:
    """The optimum of Orthogonal: its likelihood by SciPy's solver and exact derivatives, another path to the number."""
    child = optimum(orthogonal(alpha=0.5, every=1), RETAIN, GaussianMixture([1.0], [[0.0, 0.0]]), SDE)
    target = aim(replace(BUDGET, images=24, nll_steps=40))
    found = compare.prepare(child, target)["NLL forget"]

    def slopes(log_r: float, state: list[float]) -> list[float]:
        x = torch.tensor([[float(u) for u in state[:2]]], dtype=torch.float64, requires_grad=True)
        t = SDE.time(torch.tensor(log_r, dtype=torch.float64))
        noise = child.noise(x, t)[0]
        trace = sum(float(torch.autograd.grad(noise[i], x, retain_graph=True)[0][0, i]) for i in range(2))
        r = math.exp(log_r)
        return [*(r * noise.detach()).tolist(), r * trace]

    cohort = target.cohorts["forget"]
    for index in range(4):
        start = [*cohort.points[index].tolist(), 0.0]
        end = solve_ivp(slopes, (math.log(0.01), math.log(50)), start, rtol=1e-7, atol=1e-9).y[:, -1]
        nats = float(norm.logpdf(end[:2], 0, 50).sum() + end[2])
        before = float(TOY.log_density(cohort.points[index : index + 1]))
        # The parent's exact density is that of clean points, the model's that at t_min.
        assert float(found[index]) == pytest.approx(before - nats, abs=0.15), index


def test_losses_are_those_of_the_exact_posterior() -> None:
    """With opposite draws, and many of them, an image's loss is E|eps(x_t) - eps|^2 / d, here by other draws."""
    cohort = TARGET.cohorts["forget"]
    some = Cohort(rows=cohort.rows[:6], points=cohort.points[:6], labels=cohort.labels[:6])
    target = aim(replace(BUDGET, draws=4000))
    measured = loss(MODELS["retrained"], some, target, levels=(1.0,))
    eps = torch.randn(6, 40_000, 2, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    x = (some.points[:, None] + eps).flatten(0, 1)
    t = SDE.time(torch.zeros((), dtype=torch.float64))
    expected = (RETAIN.noise(x, SDE, t).view_as(eps) - eps).square().mean((1, 2))
    assert torch.allclose(measured, expected, rtol=0.06)


@pytest.mark.parametrize("name", MODELS)
def test_models_of_laws_know_no_members(name: str) -> None:
    measured = member.measure(member.prepare(MODELS[name], TARGET), TARGET)
    for key in ("AUC, NLL", "AUC, loss", "AUC, renoising"):
        assert holds(measured[key], 0.5), key


def test_a_model_that_memorised_is_caught_by_its_members() -> None:
    generator, label = torch.Generator().manual_seed(5), torch.ones(300, dtype=torch.int64)
    label[:100] = 0
    x = [torch.randn(300, 8, generator=generator, dtype=torch.float64) for _ in range(2)]
    sets = [ForgetRequest("label == 1").split(Images.of(y, columns={"label": label}, name="cloud")) for y in x]
    target = replace(aim(replace(BUDGET, images=100, nll_steps=30)), train=sets[0], held=sets[1])
    kernels = target.cohorts["forget"].points
    memory = GaussianMixture(torch.ones(len(kernels)), kernels, 0.1)
    measured = member.measure(member.prepare(memory.as_model(SDE), target), target)
    densities = [memory.log_density(target.cohorts[name].points) for name in member.SETS]
    assert measured["AUC, NLL"].value == pytest.approx(area(*densities), abs=0.03)
    for key in ("AUC, NLL", "AUC, loss", "AUC, renoising"):
        assert measured[key].low > 0.85, key
    assert measured["TPR at 1 % FPR, renoising"].value > 0.5


class TwoSides(nn.Module):
    """One weight for each of many features of points to the left, others to the right: gradients do not meet."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Parameter(torch.ones(60)), nn.Parameter(torch.ones(60))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        waves = torch.linspace(0.5, 1.5, 60)
        side = torch.where(x[:, :1] < 0, self.left, self.right)
        return (side * waves * x[:, :1]).mean(1, keepdim=True) * x


def sided(right: bool) -> Target:
    x = torch.randn(400, 2, generator=torch.Generator().manual_seed(4)).abs() * 40 + 200
    x[::2, 0] *= -1
    label = (x[:, 0] > 0).long() if right else (x[:, 0] < 0).long()
    split = ForgetRequest("label == 1").split(Images.of(x, columns={"label": label}, name="sides"))
    return replace(
        TARGET, parent=ScoreModel(TwoSides(), SDE, shape=(2,), precondition=Noise()), train=split, held=split,
        budget=replace(BUDGET, images=64),
    )  # fmt: skip


def test_a_mask_made_from_forget_images_is_located() -> None:
    target = sided(right=True)
    child = ScoreModel(TwoSides(), SDE, shape=(2,), precondition=Noise())
    with torch.no_grad():
        child.network.right += 0.1
    measured = locate.measure(locate.prepare(child, target), target)
    assert measured["frozen"].value == 0.5
    # Forget images ask the right weights only (their score is 1), retained ones the left ones (0).
    assert measured["AUC, places"].value == 1.0
    other = sided(right=False)
    measured = locate.measure(locate.prepare(child, replace(other, parent=target.parent)), other)
    assert measured["AUC, places"].value == 0.0


def test_the_mask_of_salun_is_located() -> None:
    split = ForgetRequest("label == 1").split(tiny_data(400))
    parent = tiny_model(dropout=0.0)
    settings = UnlearnSettings(steps=3, batch=8)
    child = unlearn(parent, split, method=salun(), settings=settings, run=RunSpec(device="cpu", progress=False))
    target = replace(
        TARGET, parent=parent, train=split, held=split, forgotten=frozenset({1}), kept=frozenset({0}),
        budget=replace(BUDGET, images=150),
    )  # fmt: skip
    measured = locate.measure(locate.prepare(child, target), target)
    assert measured["frozen"].value == pytest.approx(0.5, abs=0.001)
    assert measured["AUC, places"].low > 0.6


@pytest.mark.parametrize(("moved", "frozen", "tells"), [(False, 1.0, 1.0), (True, 0.0, 0.5)])
def test_without_a_mask_there_is_nothing_to_locate_but_the_parent(moved: bool, frozen: float, tells: float) -> None:
    target = sided(right=True)
    child = ScoreModel(TwoSides(), SDE, shape=(2,), precondition=Noise())
    with torch.no_grad():
        for weights in child.parameters():
            weights += 0.1 * moved
    measured = locate.measure(locate.prepare(child, target), target)
    assert measured["frozen"].value == frozen
    assert measured["AUC, places"].value == tells


# --------------------------------------------------------------------------------------------------------- the table


def test_every_attack_gives_the_numbers_that_its_verdict_is_about() -> None:
    target = aim(
        Budget(images=12, samples=12, sampling_steps=4, checkpoints=(1, 2), rounds=2, draws=4, shown=(1, 10, 100))
    )
    for name, attack in ATTACKS.items():
        assert attack.name == name
        measured = attack.measure(attack.prepare(weighing(0.2), target), target)
        told = {key: each for key, each in measured.items() if not each.detail}
        assert told and set(attack.known) <= set(told), name
        assert all(each.unit in MARGINS and each.interval for each in told.values()), name
        assert all(measured[key].name == key for key in measured), name


@pytest.mark.parametrize("bad", [{"images": 1}, {"samples": 0}, {"levels": (1.0, 0.5)}, {"checkpoints": ()}])
def test_budgets_are_checked(bad: dict[str, object]) -> None:
    with pytest.raises(UserError, match=next(iter(bad))):
        Budget(**bad)  # type: ignore[arg-type]
