"""Write the blocks of docs/results/index.md, the paper's claims and their answers: python scripts/make_answers.py.

Everything is made from the committed results in docs/results. With --check nothing is written: the exit status says
whether the page is up to date.
"""

import json
import math
import sys
from dataclasses import replace
from typing import Any

from blocks import ROOT, fill, table

from msgm.experiments.paper.claims import NEAR, SURELY, Claim, Verdict, bounds, claims, higher, lower, near, told
from msgm.experiments.paper.report import (
    Bounds,
    Results,
    bent,
    draws,
    floor,
    frechet,
    likelihood,
    parts,
    ratio,
    run,
    share,
)  # fmt: skip
from msgm.experiments.paper.tables import OURS, TABLES
from msgm.metrics import quantities
from msgm.metrics.judge import Judge
from msgm.metrics.rates import wilson
from msgm.report.results import Result

PAGE = ROOT / "docs/results/index.md"
CIFAR, MNIST, SCRATCH, TOY, DEMO = (
    "[CIFAR-10](cifar10-gpu.md), VP, fine-tuned", "[MNIST](../sweep.md), VE, fine-tuned",
    "[MNIST](../deflect.md#re-training), VE, from scratch", "[toy](../toy.md)", "[demo](../guide.md), MNIST",
)  # fmt: skip
Answer = tuple[str, Claim]
"""Where the numbers are from, and the claim with its verdict."""


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / f"docs/results/{name}.json").read_text())
    return found


class Sweep:
    """A sweep's or a demo's results by method; the model that all start from is ``standard``."""

    def __init__(self, name: str) -> None:
        results = read(name)
        self.judge = results.get("judge")
        self.rows = {row["method"]: Result.from_dict(row) for row in results["rows"]}

    @property
    def methods(self) -> list[str]:
        return list(self.rows)

    def quality(self, method: str) -> tuple[float, float]:
        """Total variation of the kept classes' shares in %, and Fréchet distance."""
        bent, distance = (self.rows[method].value(each) for each in (quantities.BENT, quantities.FRECHET))
        return (math.nan if bent is None else 100 * bent, math.nan if distance is None else distance)

    @property
    def floor(self) -> Bounds:
        """What its judge calls a class to forget among test images to retain; in the package a 3 or a 7."""
        if self.judge:
            return Bounds(**{key: self.judge["false_positives"][key] for key in ("value", "low", "high")})
        confusion = Judge.load("demo").confusion[[0, 1, 2, 4, 5, 6, 8, 9]]
        found = wilson(int(confusion[:, [3, 7]].sum()), int(confusion.sum()))
        return Bounds(value=found.value, low=found.low, high=found.high)

    def rate(self, method: str) -> Bounds | None:
        return bounds(self.rows[method].get(quantities.UR)) if method in self.rows else None

    def junk(self, method: str) -> Bounds | None:
        return bounds(self.rows[method].get(quantities.JUNK))

    def nll(self, method: str, side: str) -> Bounds | None:
        found = self.rows[method].get(quantities.NLL[side])
        if found is None or found.value is None or found.stderr is None:
            return None
        low, high = found.interval or (found.value - 1.96 * found.stderr, found.value + 1.96 * found.stderr)
        return Bounds(value=found.value, low=low, high=high)


class Grid:
    """The fine-tuned models of the tables' grid, of one process."""

    def __init__(self, name: str, process: str = "vp") -> None:
        self.results: Results = read(name)
        self.part = next(each for each in parts(self.results) if (each.process, each.origin) == (process, "tuned"))

    @property
    def methods(self) -> list[str]:
        return run(self.results, self.part)

    def junk(self, method: str) -> Bounds | None:
        return bounds(share(self.results, self.part, method, ["junk"], draws(self.results)[0]))

    def quality(self, method: str) -> tuple[float, float]:
        """Total variation of the kept classes' shares in %, and Fréchet distance."""
        return 100 * bent(self.results, self.part, method), frechet(self.results, self.part, method)

    @property
    def floor(self) -> Bounds:
        """What the judge calls a class to forget among test images to retain."""
        found = bounds(floor(self.results))
        assert found is not None
        return found

    def rate(self, method: str) -> Bounds | None:
        return bounds(ratio(self.results, self.part, method))

    def nll(self, method: str, side: str) -> Bounds | None:
        return likelihood(self.results, self.part, method, side)


class Toy:
    """Rows of the toy by what they are."""

    def __init__(self) -> None:
        self.rows = read("toy")["rows"]

    def row(self, toy: str, objective: str, mode: str, alpha: float | None = None, every: int | None = None) -> Any:
        wanted = {"toy": toy, "objective": objective, "mode": mode, "separate": False if alpha else None}
        wanted |= {"alpha": alpha, "every": every}
        return next(row for row in self.rows if all(row[key] == value for key, value in wanted.items()))

    @staticmethod
    def nll(row: Any, side: str) -> str:
        one = row["nll"][side]
        return f"{one['nats']:.2f} [{one['low']:.2f}, {one['high']:.2f}] nats"


def claim(text: str, verdict: Verdict, evidence: str = "") -> Claim:
    return Claim(claim=text, verdict=verdict, evidence=evidence)


NOT: Verdict = "not run yet"


def runs(table: str) -> list[tuple[str, Results]]:
    """The results that have this table, each with the name of its page."""
    found = [(path.stem, json.loads(path.read_text())) for path in sorted((ROOT / "docs/results").glob("*.json"))]
    return [(page, results) for page, results in found if table in results.get("tables", ())]


def of(table: str, text: str, *words: str) -> list[Answer]:
    """What became of the claims about a table that have all these words; ``text`` is what it is about, if none has."""
    found = [
        (f"[{TABLES[table].title.split(':')[0]}, {page.rpartition('-')[2]}]({page}.md)", each)
        for page, results in runs(table)
        for each in claims({**results, "tables": [table]})
        if all(word in each.claim for word in words) and each.verdict != NOT
    ]
    return found or [("", claim(f"{text}: `msgm reproduce {table}`", NOT))]


def features() -> list[Answer]:
    """Orthogonal and Obtuse on a feature of faces."""
    text = "Obtuse forgets features better than Orthogonal does (CelebA, Bangs)"
    found: list[Answer] = []
    for page, results in runs("table2-celeba"):
        part = next(each for each in parts(results) if each.origin == "tuned")
        rates = [bounds(ratio(results, part, name)) for name in ("obtuse", "orthogonal")]
        found.append((f"[Table 2, CelebA, {page.rpartition('-')[2]}]({page}.md)", lower(text, *rates)))
    return found or [("", claim(text, NOT))]


def abstract(cifar: Grid, mnist: Sweep, scratch: Sweep, toy: Toy) -> list[Answer]:
    exact = toy.row("overlapping", "unseen", "retrain")
    standard, apart = toy.row("overlapping", "standard", "retrain"), toy.row("separated", "unseen", "retrain")
    moved = exact["nll"]["forget"]["low"] > standard["nll"]["forget"]["high"]
    less = "generates less"
    still = "Unseen still generates the forgotten: beyond the judge's errors on real images"
    sources = ((SCRATCH, scratch), (MNIST, mnist), (CIFAR, cifar))
    found: list[Answer] = [
        *((where, _over(still, each.rate("unseen"), each.floor)) for where, each in sources),
        *of("table2-cifar10", "The same on CIFAR-10, from scratch", "Unseen still generates"),
        (
            TOY,
            claim(
                "Re-training without the data does not alter the score function (Fig. 1: the modes overlap)",
                "contradicted at this budget" if moved else "confirmed at this budget",
                f"D_f {toy.nll(exact, 'forget')} re-trained, {toy.nll(standard, 'forget')} before; the exact optimum "
                f"without these data is {exact['optimum']['nll']['forget']['nats']:.2f}",
            ),
        ),
        (
            TOY,
            claim(
                "A re-trained model generalises to what it never saw, where that lies between the modes",
                "confirmed at this budget"
                if apart["nll"]["forget"]["high"] < apart["optimum"]["nll"]["forget"]["nats"]
                else "not confirmed at this budget",
                f"D_f {toy.nll(apart, 'forget')}, the exact optimum {apart['optimum']['nll']['forget']['nats']:.2f}; "
                f"but {100 * apart['ode']['share']['value']:.1f} % of its samples lie there",
            ),
        ),
    ]
    return [
        *found,
        *of("figure3", "What Unseen still generates on MNIST, beside the training images (Figure 3)"),
        *of("table2-cifar10", "MSGM forgets where a model is trained from scratch, too", less, "than Unseen"),
        *of("table6", "MSGM forgets on DDPM", "DDPM", less, "than Unseen"),
    ]


def _over(text: str, rate: Bounds | None, floor: Bounds) -> Claim:
    assert rate is not None
    return replace(lower(text, floor, rate), evidence=f"{told(rate, True)}; the judge's errors {told(floor, True)}")


def classwise(cifar: Grid, mnist: Sweep, scratch: Sweep, demo: Sweep) -> list[Answer]:
    found: list[Answer] = []
    names = {"orthogonal": "Orthogonal", "obtuse": "Obtuse"}
    for where, source in ((CIFAR, cifar), (MNIST, mnist)):
        for method, name in names.items():
            text = f"{name} generates less of the forgotten than Unseen "
            found.append((where, lower(text, source.rate(method), source.rate("unseen"))))
    text = f"A model that never saw the forgotten finds it as likely as the rest, within {NEAR:g} bits/dim"
    found.append((SCRATCH, near(text, scratch.nll("unseen", "forget"), scratch.nll("unseen", "retain"))))
    for where, source in ((CIFAR, cifar), (MNIST, mnist)):
        text = f"Unseen leaves the likelihood of the forgotten where it was, within {NEAR:g} bits/dim"
        found.append((where, near(text, source.nll("unseen", "forget"), source.nll("standard", "forget"))))
        for method, name in names.items():
            for other, title in (("unseen", "Unseen"), ("erasediff", "EraseDiff")):
                text = f"{name} makes the forgotten less likely than {title} does, {SURELY}"
                found.append((where, higher(text, source.nll(method, "forget"), source.nll(other, "forget"), NEAR)))
    text = "Orthogonal forgets classes better than Obtuse does"
    found.append((CIFAR, lower(text, cifar.rate("orthogonal"), cifar.rate("obtuse"))))
    junk, clean = demo.junk("orthogonal"), demo.junk("standard")
    assert junk is not None and clean is not None
    kept = f"Orthogonal keeps the likelihood of the rest, within {NEAR:g} bits/dim"
    found += [
        *features(),
        (
            DEMO,
            claim(
                "Orthogonal puts noise in the place of what is forgotten (here with a heavier weight than the paper's)",
                "confirmed at this budget" if clean.below(junk) else "not confirmed at this budget",
                f"junk {told(junk, True)}, Standard {told(clean, True)}",
            ),
        ),
        (CIFAR, near(kept, cifar.nll("orthogonal", "retain"), cifar.nll("standard", "retain"))),
        *of("table2-mnist", "Table 2 on MNIST, VE, fine-tuned and from scratch"),
        *of("table2-celeba", "Table 2 on CelebA, Bangs"),
        *of("table2-stl10", "Table 2 on STL-10, airplanes"),
        *of("table2-airplane", "Table 2 with CIFAR-10's airplanes in the place of STL-10's"),
    ]
    return found


def downstream() -> list[Answer]:
    return [
        answer
        for table, text in (
            ("table3-mnist", "Inpainting: D_f is changed, D_g is kept (Table 3, MNIST)"),
            ("table3-cifar10", "The same on CIFAR-10"),
            ("table3-celeba", "The same on CelebA"),
            ("table4-mnist", "Reconstruction: D_f is changed, D_g is kept (Table 4, MNIST)"),
            ("table4-cifar10", "The same on CIFAR-10"),
        )
        for answer in of(table, text, "keep their class")
    ]


def tuned(cifar: Grid) -> list[Answer]:
    found: list[Answer] = []
    for method, name in {"orthogonal": "Orthogonal", "obtuse": "Obtuse"}.items():
        text = f"{name} fine-tuned generates less of the forgotten than EraseDiff (VP, Table 6)"
        found.append((CIFAR, lower(text, cifar.rate(method), cifar.rate("erasediff"))))
    less, than = "generates less", "than EraseDiff"
    return [
        *found,
        *of("table6", "The same on DDPM (Table 6)", "DDPM", less, than),
        *of("table2-celeba", "The same for a feature (CelebA)", "fine-tuned", less, than),
    ]


def ablation(toy: Toy) -> list[Answer]:
    def harm(row: Any) -> str:
        return f"D_g {toy.nll(row, 'retain')}, {100 * row['ode']['outliers']['value']:.1f} % outliers"

    each, fourth = (toy.row("overlapping", "orthogonal", "fine-tune", 0.7, every) for every in (1, 4))
    better = fourth["nll"]["retain"]["high"] < each["nll"]["retain"]["low"]
    lighter = toy.row("overlapping", "orthogonal", "fine-tune", 0.9, 1)
    gentle, heavy = (toy.row("overlapping", "orthogonal", "fine-tune", alpha, 1) for alpha in (0.99, 0.7))
    plain = toy.row("overlapping", "unseen", "fine-tune")
    forgets = gentle["nll"]["forget"]["low"] > plain["nll"]["forget"]["high"]
    return [
        (
            TOY,
            claim(
                "Alternating (every 4th step) keeps quality better than simultaneous updates (Orthogonal, alpha 0.7)",
                "confirmed at this budget" if better else "not confirmed at this budget",
                f"{harm(fourth)}, against {harm(each)}; but alpha 0.9 on every step does as well: {harm(lighter)}",
            ),
        ),
        (
            TOY,
            claim(
                "alpha 0.99 is a good balance: it forgets, and keeps quality (Orthogonal)",
                "confirmed at this budget" if forgets else "not confirmed at this budget",
                f"alpha 0.99: D_f {toy.nll(gentle, 'forget')}, {harm(gentle)}; Unseen D_f {toy.nll(plain, 'forget')}; "
                f"alpha 0.7: D_f {toy.nll(heavy, 'forget')}, {harm(heavy)}",
            ),
        ),
        *of("table7", "alpha 0.7, 0.9, 0.99 and 1 on MNIST (Table 7)"),
        *of("figure7", "Alternating and simultaneous updates on MNIST (Figure 7)"),
    ]


def answered(answers: list[Answer]) -> str:
    rows = [(each.claim, f"**{each.verdict}**", each.evidence, where) for where, each in answers]
    return table(("the paper says", "here", "measured (95 % intervals)", "from"), rows)


def recipe(sources: list[tuple[str, Sweep | Grid]]) -> str:
    """In every column: the model before, Unseen, ours, and what has the least ratio where that is another.

    A recipe that was not run somewhere has no row there.
    """
    rows = []
    for where, source in sources:
        rates = {name: rate for name in source.methods if (rate := source.rate(name)) is not None}
        least = min((name for name in rates if name != "standard"), key=lambda name: rates[name].value)
        shown = dict.fromkeys(("standard", "unseen", *OURS, least))
        for name in (each for each in shown if each in rates):
            junk, apart = source.junk(name), _apart(source, name)
            assert junk is not None
            cells = (f"{100 * junk.value:.1f} %", *map(_plain, source.quality(name)), apart)
            rows.append((where if name == "standard" else "", f"`{name}`", told(rates[name], True), *cells))
        rows.append(("", "real images", told(source.floor, True), *[""] * 4))
    return table(("", "recipe", "UR [95 %]", "junk", "TV %", "Fréchet", "D_f - D_g, bits/dim"), rows)


def _plain(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.1f}"


def _apart(source: Sweep | Grid, name: str) -> str:
    """By how many bits/dim forgotten images are less likely than retained ones, where both pass their check."""
    sides = [source.nll(name, side) for side in ("forget", "retain")]
    if any(each is None or not each.reliable for each in sides):
        return "–"
    forget, retain = (each.value for each in sides if each is not None)
    return f"{forget - retain:+.2f}"


def main() -> int:
    cifar, toy = Grid("cifar10-gpu"), Toy()
    mnist, scratch, demo = map(Sweep, ("sweep", "scratch", "demo"))
    made = {
        "abstract": answered(abstract(cifar, mnist, scratch, toy)),
        "classwise": answered(classwise(cifar, mnist, scratch, demo)),
        "downstream": answered(downstream()),
        "tuned": answered(tuned(cifar)),
        "ablation": answered(ablation(toy)),
        "recipe": recipe(
            [
                ("[MNIST](../sweep.md), 28x28", mnist),
                ("[MNIST, small](mnist-small.md), 28x28", Grid("mnist-small", "ve")),
                ("[CIFAR-10, deer and frogs](../moderate.md#cifar-10), 16x16", Sweep("cifar-a")),
                ("[CIFAR-10, cars and trucks](../moderate.md#cifar-10), 16x16", Sweep("cifar-cars")),
                ("[CIFAR-10, small](cifar10-small.md), VP, 16x16", Grid("cifar10-small")),
                ("[CIFAR-10, small](cifar10-small.md), DDPM, 16x16", Grid("cifar10-small", "ddpm")),
                ("[CIFAR-10's airplanes, small](table2-airplane-small.md), 16x16", Grid("table2-airplane-small")),
                ("[CIFAR-10](cifar10-gpu.md), 32x32", cifar),
                ("[Bangs](../moderate.md#faces), 32x32", Sweep("faces")),
                ("[Bangs, small](celeba-small.md), 32x32", Grid("celeba-small")),
            ]
        ),
    }
    return fill(PAGE, made, check="--check" in sys.argv)


if __name__ == "__main__":
    raise SystemExit(main())
