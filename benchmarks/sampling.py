"""Time per image of samples as good as those of the 1,000-step predictor-corrector, and what each sampler gives.

Everything is drawn in rounds, a block of the reference and of each setting in turn. The judge shares out the samples;
the Fréchet distance is that of its features to test images, of equally many samples for all: it falls with their
number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

import outside
import reference
from common import Report, arguments, main, percent, ratio, timed
from msgm.cli.options import Data, images_of
from msgm.data import ForgetRequest
from msgm.experiments.core.evaluate import check
from msgm.formats import load
from msgm.formats.native import embedded
from msgm.metrics import Judge, Rate, Shares, frechet_distance, judged_shares
from msgm.model.score import ScoreModel
from msgm.model.space import Space
from msgm.process.sde import DDPM
from msgm.progress import bar
from msgm.sampling import SAMPLERS, Sampler, build

TARGET = 25.0
RULE = "label in [3, 7]"
ODE = {"heun", "dpm++", "ddim", "euler", "rk45"}
ODE |= {"diffusers ddim", "diffusers dpm++", "azula ddim", "azula heun", "azula xEAB"}
OURS = ("dpm++", "heun", "dpm++-sde", "ancestral")
"""Who may be named as the fastest that is as good as the reference."""


Target = tuple[Shares, Tensor, tuple[float, float]]
"""What a `Scorer` says of samples."""


@dataclass(kw_only=True)
class Setting:
    """A sampler at a number of evaluations, what it drew so far and how long that took."""

    name: str
    nfe: float
    draw: Callable[[int, int], Tensor]
    """(number of images, seed) -> images in model space."""
    space: Space
    samples: list[Tensor] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    """For each image, in each block."""

    def block(self, n: int, seed: int) -> None:
        """Draw n more images. They are kept as pixels: the judge sees what a picture can show."""
        drawn: list[Tensor] = []
        self.seconds.append(timed(lambda: drawn.append(self.draw(n, seed))) / n)
        self.samples.append(self.space.to_pixels(drawn[0]))


class Scorer:
    """The judge's view of samples."""

    def __init__(self, judge: Judge, forget: set[int], real: Tensor, size: int) -> None:
        self.judge, self.forget, self.size = judge, forget, size
        self.real = judge.features(real)

    def __call__(self, pixels: Tensor) -> Target:
        """Shares; counts of each verdict; the Fréchet distance of ``size`` samples and its standard error."""
        verdicts, features = self.judge.predict(pixels), self.judge.features(pixels)
        shares = judged_shares(verdicts, self.forget, self.judge.classes)
        counts = torch.tensor(list(self.judge.counts(verdicts).values()))
        return shares, counts, self.distance(features)

    def distance(self, features: Tensor, groups: int = 10) -> tuple[float, float]:
        """Mean over blocks of ``size`` samples, and its error by the jackknife over groups left out; nan for fewer."""
        blocks = [b for b in features.split(self.size) if len(b) == self.size]
        if not blocks:
            return math.nan, math.nan
        value = sum(frechet_distance(b, self.real) for b in blocks) / len(blocks)
        parts = blocks[0].chunk(groups)
        if len(parts) < groups or self.size < 2 * groups:
            return value, math.nan
        # A block without one of its groups is smaller, and the distance of fewer samples larger, by the same for all.
        left = [frechet_distance(torch.cat([*parts[:i], *parts[i + 1 :]]), self.real) for i in range(groups)]
        spread = torch.tensor(left, dtype=torch.float64).var(correction=0)
        return value, math.sqrt((groups - 1) * float(spread) / len(blocks))


def run(given: Sequence[str] | None = None) -> Path:
    """The benchmark; the path of its JSON file."""
    options = arguments(
        __doc__ or "",
        given,
        n=(40, 200, "samples of each setting"),
        rounds=(2, 5, "rounds in which they are drawn"),
        reference_steps=(1000, 1000, "steps of the reference sampler"),
        nfe=((10, 20), (5, 10, 15, 20, 30, 50, 200, 1000), "evaluations of each sampler in the table"),
        few=(0.25, 0.25, "share of the samples that settings of 500 evaluations or more get"),
        tolerances=((1e-2,), (1e-1, 1e-2, 1e-3), "of rk45 in the table"),
        other_nfe=((10,), (10, 20, 50), "evaluations of the other libraries' samplers"),
        blocks=(4, 5, "times n fresh samples that must confirm the setting chosen"),
        samplers=(OURS, tuple(SAMPLERS), "which of msgm's"),
        unlearned=(None, None, "folder of an unlearned copy of the model, measured as well"),
        forget=(None, None, "rule of the request; by default the unlearned model's own, or label in [3, 7]"),
        judge=(None, None, "folder of a judge; by default the MNIST judge in the package"),
    )
    report = Report(
        name="sampling",
        claim=f"`ratio`: how many times longer the {options.reference_steps:,}-step reference takes for an image than "
        "the fastest ODE setting of msgm whose shares and Fréchet distance lie within the reference's 95 % intervals; "
        f"`ratio_sde` the same for samplers that draw fresh noise (target: {TARGET:.0f} or more).",
        options=options,
        notes=[
            "A setting is within the reference's intervals when its share of forget classes is inside, its junk and "
            "its Fréchet distance not above. The one chosen must be so in the table and again in fresh samples.",
            "p: probability of verdicts as unlike the reference's, if both had one law (chi-squared, all classes).",
            "The Fréchet distances of one table are of equally many samples; with more, all would be lower. Settings "
            f"of 500 evaluations or more get {options.few:.0%} of the samples: wider intervals, and no distance.",
        ],
    )
    models = {"": load(options.model)} | ({"unlearned": load(options.unlearned)} if options.unlearned else {})
    judge = Judge.load(options.judge or embedded("judge"))
    test = images_of(models[""], Data().of(models[""]), "test")
    request = ForgetRequest(options.forget or list(models.values())[-1].record.get("request", {}).get("rule") or RULE)
    report.facts["rule"] = request.rule
    for name, model in models.items():
        forget, chosen = check(model, judge, request, test)
        real = test.rows(~chosen) if name else test.rows()
        report.facts |= study(model, name, Scorer(judge, forget, real, options.n), report, options)
    report.facts = {"ratio": report.facts["ratio"], "target": TARGET, **report.facts}
    return report.write()


def study(model: ScoreModel, name: str, score: Scorer, report: Report, options: Any) -> dict[str, Any]:
    """Draw, judge and compare for one model: its table goes into the report, its headline numbers are returned."""
    base, *rest = settings(model, report, options)
    block = options.n // options.rounds
    rest[0].draw(block, options.seed)  # the first run of all is slower
    sizes = [max(1, int(block * options.few)) if each.nfe >= 500 else block for each in rest]
    work = [(base, block), *zip(rest, sizes, strict=True)]
    with bar(name or "Samples", options.rounds * sum(each.nfe * size for each, size in work)) as tick:
        for index in range(options.rounds):
            for each, size in work if index % 2 else reversed(work):
                each.block(size, options.seed + index)
                tick(each.nfe * size, note=f"{each.name} {each.nfe:.0f}")
    score.size = block * options.rounds
    target = score(torch.cat(base.samples))
    rows = {id(each): row(each, base, score, target) for each in rest}
    title = f"{name or 'standard'}: {score.size} samples of each"
    report.tables[title.capitalize()] = [row(base, base, score, target), *rows.values()]

    tail = f"_{name}" if name else ""
    facts: dict[str, Any] = {}
    fresh: dict[str, Shares] = {}
    for kind in ("ODE", "SDE"):
        ours = [s for s in rest if s.name in OURS and rows[id(s)]["kind"] == kind and rows[id(s)]["within"]]
        found = fastest(ours, base, score, target, options)
        facts[f"ratio{'_sde' if kind == 'SDE' else ''}{tail}"] = found and found[0]["ratio"]
        if found is None:
            report.notes.append(f"{title}: no {kind} setting of {', '.join(OURS)} was within the intervals twice.")
        else:
            facts[f"{kind.lower()}{tail}"], fresh[kind] = found
    if len(fresh) == 2:
        rates = [shares.unlearning_ratio for shares in fresh.values()]
        facts[f"forget_share_ode_minus_sde{tail}"] = difference(*rates)
    return facts


def fastest(
    ours: Sequence[Setting], base: Setting, score: Scorer, target: Target, options: Any
) -> tuple[dict[str, Any], Shares] | None:
    """The fastest of these settings, all within the intervals, that is so in fresh samples as well; None without."""
    for each in sorted(ours, key=lambda s: median(s.seconds)):
        seeds = range(options.seed + 1000, options.seed + 1000 + options.blocks)
        pixels = torch.cat([each.space.to_pixels(each.draw(score.size, seed)) for seed in seeds])
        shares, _, distance = score(pixels)
        if within(shares, distance, target):
            return {
                **ratio(base.seconds, each.seconds),
                "sampler": each.name,
                "nfe": each.nfe,
                "seconds_per_image": median(each.seconds),
                "fresh_samples": len(pixels),
                "forget": percent(shares.unlearning_ratio),
                "junk": percent(shares.junk),
                "frechet_distance": distance[0],
            }, shares
    return None


def settings(model: ScoreModel, report: Report, options: Any) -> list[Setting]:
    """The reference first, then each of msgm's samplers at each number of evaluations, then the other libraries'."""
    steps = options.reference_steps

    def published(n: int, seed: int) -> Tensor:
        return reference.sample(model, n, torch.Generator().manual_seed(seed), steps=steps)

    found = [Setting(name="reference", nfe=reference.evaluations(model, steps), draw=published, space=model.space)]
    for name in options.samplers:
        if name == "ddpm" and not isinstance(model.sde, DDPM) and "ancestral" in options.samplers:
            report.notes.append("ddpm is ancestral on a grid of discrete times: the same for a continuous process.")
            continue
        if name == "rk45":
            makers = [partial(SAMPLERS[name], tolerance=tol) for tol in options.tolerances]
        else:
            each = build(name, model, steps=3).nfe - build(name, model, steps=2).nfe
            makers = [partial(SAMPLERS[name], steps=1 + max(1, (nfe - 1) // each)) for nfe in options.nfe]
        for make in makers:
            sampler: Sampler = make(model)
            if name == "rk45":
                sampler.sample(8, seed=options.seed + 999)  # its evaluations are known after drawing only
            draw = partial(_draw, sampler)
            found.append(Setting(name=name, nfe=sampler.nfe, draw=draw, space=model.space))
    libraries = outside.diffusers_pipelines(model)
    try:
        libraries |= outside.azula_samplers(model)
    except ImportError as error:
        report.notes.append(f"azula's samplers were left out: {error}.")
    for name, library in libraries.items():
        found += [
            Setting(name=name, nfe=nfe, draw=partial(library, nfe), space=model.space) for nfe in options.other_nfe
        ]
    return found


def _draw(sampler: Sampler, n: int, seed: int) -> Tensor:
    return sampler.sample(n, seed=seed, batch=n)


def row(each: Setting, base: Setting, score: Scorer, target: Target) -> dict[str, Any]:
    """One line of the table."""
    shares, counts, distance = target if each is base else score(torch.cat(each.samples))
    return {
        "sampler": each.name,
        "kind": "ODE" if each.name in ODE else "SDE",
        "nfe": each.nfe,
        "seconds_per_image": median(each.seconds),
        "times_faster": ratio(base.seconds, each.seconds)["ratio"],
        "forget": percent(shares.unlearning_ratio),
        "junk": percent(shares.junk),
        "frechet_distance": distance[0],
        "stderr": distance[1],
        "p": None if each is base else alike(counts, target[1]),
        "within": None if each is base else within(shares, distance, target),
    }


def within(shares: Shares, distance: tuple[float, float], target: Target) -> bool:
    """Whether shares and distance lie within the 95 % intervals of the reference, or better where one end is better."""
    wanted, _, (mean, error) = target
    low, high = wanted.unlearning_ratio.interval
    close = distance[0] <= mean + 1.96 * error
    return low <= shares.value <= high and shares.junk.value <= wanted.junk.high and close


def alike(a: Tensor, b: Tensor) -> float:
    """p of the chi-squared test that two rows of counts have the same law."""
    from scipy.stats import chi2_contingency

    counts = torch.stack([a, b])[:, (a + b) > 0]
    return float(chi2_contingency(counts.numpy()).pvalue) if counts.shape[1] > 1 else 1.0


def difference(a: Rate, b: Rate) -> dict[str, float]:
    """a - b of two rates with its 95 % interval (Newcombe 1998, method 10)."""
    gap = a.value - b.value
    low = gap - math.hypot(a.value - a.low, b.high - b.value)
    return {"value": gap, "low": low, "high": gap + math.hypot(a.high - a.value, b.value - b.low)}


if __name__ == "__main__":
    main(run)
