"""Recipes: each published method is a named set of parts, not a trainer of its own.

A default stands in the part alone; a recipe has one of its own only where its paper or our tests ask for another.

The peers' losses are all means over pixels and batch here, so the weights of their code do not transfer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any, Literal

from ..errors import UserError
from ..installed import Known
from .classifier import ClassifierSettings
from .combine import Adaptive, Bargain, Combiner, NormFixed, PCGrad, Turns, Weighted
from .deflect import Deflect
from .expert import Expert
from .pairs import PairedAscent, PairedDenoising
from .regularise import Elastic, FisherRatio, Posterior, Regulariser, Saliency
from .steer import Steer
from .terms import Ascent, Denoising, ForgetTerm, Negated, Obtuse, Orthogonal, Redirect, UniformTarget
from .windows import Windows


@dataclass(frozen=True, kw_only=True)
class Method:
    """A retain loss, and unless ``forget`` is None a forget term and the way the two are combined."""

    name: str
    retain: Denoising = field(default_factory=Denoising)
    forget: ForgetTerm | None = None
    combine: Combiner = field(default_factory=Weighted)
    regularise: Regulariser | None = None
    """Which weights may move, and how far; beside a forget term only."""
    sees_forget: bool = False
    """Whether the forget images count as retain data (the Standard model)."""
    power: float = 0.0
    """Retain images count P^power, P the judge's confidence that an image is one to retain; 0 asks no judge."""
    paper: str = ""
    """Where it was published."""

    def __post_init__(self) -> None:
        if not self.power >= 0:
            raise UserError(f"power must be 0 or more; got {self.power}")
        if self.regularise is not None and self.combine.separate:
            raise UserError("a regulariser acts on one direction; leave out separate")

    @property
    def pairs(self) -> bool:
        """Whether each forget image shares its noise with a retained one."""
        return self.forget is not None and self.forget.pairs

    @property
    def bounded(self) -> bool:
        """Whether the loss is bounded below; if not, only the divergence guard holds it."""
        return self.forget is None or self.forget.bounded

    @property
    def needs(self) -> list[str]:
        """What it asks for beside the images to retain."""
        forgets = self.sees_forget or self.forget is not None
        return [
            *(["forget set"] if forgets else []),
            *(["pairs"] if self.pairs else []),
            *(["a judge"] if self.power else []),
            *(part.needs for part in (self.forget, self.regularise) if part is not None and part.needs),
        ]

    @property
    def fine_tunes(self) -> bool:
        """Whether it works something out of a trained model first, and cannot train one from scratch."""
        return any(part is not None and part.needs for part in (self.forget, self.regularise))

    def to_dict(self) -> dict[str, Any]:
        """The parts by name with their settings, for the record."""
        parts: dict[str, Any] = {"name": self.name, "retain": asdict(self.retain)}
        if self.forget is not None:
            parts["forget"] = {"term": type(self.forget).__name__, **_settings(self.forget)}
            parts["combine"] = {"by": type(self.combine).__name__, **_settings(self.combine)}
        if self.regularise is not None:
            parts["regularise"] = {"by": type(self.regularise).__name__, **_settings(self.regularise)}
        if self.power:
            parts["power"] = self.power
        return parts


def _settings(part: Any) -> dict[str, Any]:
    """The fields of a part; a term in it likewise, a function by its name."""

    def plain(value: Any) -> Any:
        if isinstance(value, ForgetTerm):
            return {"term": type(value).__name__, **_settings(value)}
        if is_dataclass(value) and not isinstance(value, type):
            return asdict(value)
        return getattr(value, "__qualname__", type(value).__name__) if callable(value) else value

    return {f.name: plain(getattr(part, f.name)) for f in fields(part)}


Target = Literal["uniform", "ascent", "redirect"]
"""Forget terms for the methods that are a combiner or a mask, and take any."""


def _target(form: Target) -> ForgetTerm:
    redirect = Redirect(low=0.15, contrast=0.0)
    return {"uniform": UniformTarget(), "ascent": Ascent(form="bounded"), "redirect": redirect}[form]


def standard() -> Method:
    """The ordinary loss on all data: forgets nothing."""
    return Method(name="standard", sees_forget=True, paper="Song et al., ICLR 2021")


def unseen() -> Method:
    """The ordinary loss on the retain data only: the usual 'gold standard' (paper Sec. 3.2)."""
    return Method(name="unseen", paper="Jiang et al.")


def orthogonal(
    *, alpha: float = 0.99, every: int = 4, form: Literal["elementwise", "inner", "literal"] = Orthogonal.form
) -> Method:
    """Orthogonal-MSGM (paper Eq. 7, 9)."""
    combine = Weighted(alpha=alpha, every=every)
    return Method(name="orthogonal", forget=Orthogonal(form=form), combine=combine, paper="Jiang et al.")


def obtuse(
    *,
    alpha: float = 0.99,
    every: int = 4,
    form: Literal["windowed", "literal", "released_sign"] = Obtuse.form,
    window: float | None = Obtuse.window,
    clamp: float = Obtuse.clamp,
) -> Method:
    """Obtuse-MSGM (paper Eq. 8, 9)."""
    term = Obtuse(form=form, window=window, clamp=clamp)
    return Method(name="obtuse", forget=term, combine=Weighted(alpha=alpha, every=every), paper="Jiang et al.")


def erasediff(
    *,
    alpha: float | None = None,
    every: int = Adaptive.every,
    eta: float = Adaptive.eta,
    inner: int = Adaptive.inner,
    rate: float = Adaptive.rate,
) -> Method:
    """Uniform in place of Gaussian noise on the forget data, with a weight that adapts; at a fixed one with alpha.

    Args:
        alpha: fixed weight of the retain loss; by default it adapts.
    """
    adaptive = Adaptive(every=every, eta=eta, inner=inner, rate=rate)
    combine = adaptive if alpha is None else Weighted(alpha=alpha, every=every)
    return Method(name="erasediff", forget=UniformTarget(), combine=combine, paper="Wu et al., 2024, arXiv 2401.05779")


def neggrad(*, form: Literal["literal", "bounded"] = Ascent.form, clamp: float = Ascent.clamp) -> Method:
    """Ascent on the forget data alone."""
    term = Ascent(form=form, clamp=clamp)
    return Method(name="neggrad", forget=term, combine=Turns(every=1), paper="Golatkar et al., CVPR 2020")


def neggrad_plus(
    *,
    alpha: float = 0.96,
    every: int = Weighted.every,
    form: Literal["literal", "bounded"] = Ascent.form,
    clamp: float = Ascent.clamp,
) -> Method:
    """The ordinary loss minus k times that of the forget data, k = (1 - alpha) / alpha."""
    combine = Weighted(alpha=alpha, every=every)
    term = Ascent(form=form, clamp=clamp)
    return Method(name="neggrad-plus", forget=term, combine=combine, paper="Kurmanji et al., NeurIPS 2023")


def salun(
    *, alpha: float = 0.5, every: int = Weighted.every, form: Target = "uniform", keep: float = Saliency.keep
) -> Method:
    """Only the weights that matter most to the forget term move; the others are frozen.

    Args:
        form: the forget term.
    """
    return Method(
        name="salun", forget=_target(form), combine=Weighted(alpha=alpha, every=every), regularise=Saliency(keep=keep),
        paper="Fan et al., ICLR 2024",
    )  # fmt: skip


def sfron(
    *,
    every: int = 2,
    strength: float = 10.0,
    threshold: float = FisherRatio.threshold,
    samples: int = FisherRatio.samples,
) -> Method:
    """Fading ascent where Fisher's information of the forget data is the larger, in turns with ordinary steps."""
    return Method(
        name="sfron", forget=Ascent(strength=strength, adaptive=0.5, fade=True), combine=Turns(every=every),
        regularise=FisherRatio(threshold=threshold, samples=samples), paper="Huang et al., NeurIPS 2024",
    )  # fmt: skip


def selective_amnesia(
    *, alpha: float = 0.5, every: int = Weighted.every, weight: float = Elastic.weight, samples: int = Elastic.samples
) -> Method:
    """The uniform target, held by elastic weights with Fisher's information from the model's own samples."""
    return Method(
        name="selective-amnesia", forget=UniformTarget(), combine=Weighted(alpha=alpha, every=every),
        regularise=Elastic(weight=weight, samples=samples), paper="Heng and Soh, NeurIPS 2023",
    )  # fmt: skip


def siss(*, mix: float = PairedAscent.mix, share: float = NormFixed.share) -> Method:
    """Pairs of a retained and a forget image with importance weights; made for single images."""
    return Method(
        name="siss", retain=PairedDenoising(mix=mix), forget=PairedAscent(mix=mix), combine=NormFixed(share=share),
        paper="Alberti et al., ICLR 2025",
    )  # fmt: skip


def munba(*, every: int = Bargain.every, form: Target = "uniform") -> Method:
    """Nash's bargain of the two gradients.

    Args:
        form: the forget term.
    """
    return Method(name="munba", forget=_target(form), combine=Bargain(every=every), paper="Wu and Harandi, ICCV 2025")


def retrack(*, alpha: float = 0.98, every: int = Weighted.every, neighbours: int = 10) -> Method:
    """The score of each forget image's nearest retained images at the forget points, as an error of the noise."""
    term = Redirect(weighting="noise", low=0.0, contrast=0.0, neighbours=neighbours, near="image")
    return Method(
        name="retrack", forget=term,
        combine=Weighted(alpha=alpha, every=every), paper="Shi et al., 2025, arXiv 2509.13007",
    )  # fmt: skip


def esd(
    *, alpha: float = 0.5, every: int = Weighted.every, eta: float = Expert.eta, steps: int = Expert.steps
) -> Method:
    """Away from an expert of the forget data: ESD, whose prompts an unconditional model does not have."""
    return Method(
        name="esd", forget=Expert(eta=eta, steps=steps), combine=Weighted(alpha=alpha, every=every),
        paper="Gandikota et al., ICCV 2023",
    )  # fmt: skip


def vdu(
    *, weight: float = Posterior.weight, checkpoints: int = Posterior.checkpoints, gap: int = Posterior.gap
) -> Method:
    """Ascent on the forget data alone, held by a posterior of the weights over several checkpoints."""
    return Method(
        name="vdu", forget=Ascent(), combine=Turns(every=1),
        regularise=Posterior(weight=weight, checkpoints=checkpoints, gap=gap),
        paper="Panda et al., 2025, arXiv 2510.04058",
    )  # fmt: skip


def reweight(*, power: float = 4.0) -> Method:
    """The ordinary loss on the retain data, each image weighted by how sure a judge is that it is one to retain.

    Args:
        power: of the judge's confidence, by which an image counts.
    """
    return Method(name="reweight", power=power, paper="ours")


def redirect(
    *,
    alpha: float = Weighted.alpha,
    every: int = Weighted.every,
    contrast: float = Redirect.contrast,
    low: float = Redirect.low,
    high: float = Redirect.high,
    subset: int = Redirect.subset,
) -> Method:
    """The exact score of the retained images at the forget points, and a little beyond it."""
    term = Redirect(contrast=contrast, low=low, high=high, subset=subset)
    return Method(name="redirect", forget=term, combine=Weighted(alpha=alpha, every=every), paper="ours")


def deflect(
    *,
    alpha: float = Weighted.alpha,
    every: int = Weighted.every,
    contrast: float = Deflect.contrast,
    low: float = Deflect.low,
    high: float = Deflect.high,
) -> Method:
    """What the model said at the forget points, moved away from them."""
    term = Deflect(contrast=contrast, low=low, high=high)
    return Method(name="deflect", forget=term, combine=Weighted(alpha=alpha, every=every), paper="ours")


def _over_orthogonal(steered: Steer, at: float) -> Windows:
    """Below ``at``, what the classifier is sure of is forbidden."""
    return Windows(above=steered, below=Orthogonal(), at=at, share=0.25, sure=2.0)


def steer(
    *,
    alpha: float = 0.7,
    every: int = Weighted.every,
    margin: float = Steer.margin,
    reach: float = Steer.reach,
    high: float = 8.0,
    at: float = 0.6,
    steps: int = ClassifierSettings.steps,
) -> Method:
    """Steered away by a classifier above the noise level ``at``, forbidden below it; nothing is recalled.

    Args:
        margin: how far beyond the retained score to steer.
        reach: how far, at most, in units of sigma_data.
        high: noise level sigma/alpha up to which to steer.
        at: noise level that parts the two terms.
        steps: of the classifier's training.
    """
    above = Steer(margin=margin, reach=reach, high=high, classifier=ClassifierSettings(steps=steps))
    term = _over_orthogonal(above, at)
    return Method(name="steer", forget=term, combine=Weighted(alpha=alpha, every=every), paper="ours")


def moderate(
    *,
    alpha: float = 0.6,
    every: int = Weighted.every,
    recall: float = 3.0,
    margin: float = Steer.margin,
    at: float = 0.6,
    steps: int = ClassifierSettings.steps,
) -> Method:
    """The retained images' score at high noise, steered away where a path is undecided, forbidden below; the default.

    Args:
        recall: noise level above which images are recalled.
        margin: how far beyond the retained score to steer.
        at: noise level below which to forbid.
        steps: of the classifier's training.
    """
    steered = Steer(margin=margin, classifier=ClassifierSettings(steps=steps))
    # Not all of them: they need not fit into the memory.
    term = Windows(above=Redirect(subset=4096), below=_over_orthogonal(steered, at), at=recall)
    return Method(name="moderate", forget=term, combine=Weighted(alpha=alpha, every=every), paper="ours")


_OWN: dict[str, Callable[..., Method]] = {
    f.__name__.replace("_", "-"): f
    for f in (
        standard, unseen, orthogonal, obtuse, erasediff, neggrad, neggrad_plus, salun, sfron, selective_amnesia, siss,
        munba, retrack, esd, vdu, reweight, redirect, deflect, steer, moderate,
    )
}  # fmt: skip
METHODS = Known("msgm.methods", _OWN)
"""Ours, and those of other packages."""
DEFAULT = "moderate"

AUTHORS: dict[str, dict[str, Any]] = {
    # The released code fixes the weight of the forget loss at 0.1 beside 1 for the retain loss.
    "erasediff": {"alpha": 0.909},
    # k is at most 0.05.
    "neggrad-plus": {"alpha": 0.952},
    # Eq. 8 as printed.
    "obtuse": {"form": "literal"},
}
"""Options as their authors printed or released them, of the recipes whose own are others. The learning rate and the
number of steps are the run's, not the recipe's."""

PARTS: dict[str, dict[str, Callable[..., Any]]] = {
    "forget": {
        "orthogonal": Orthogonal, "obtuse": Obtuse, "ascent": Ascent, "uniform": UniformTarget, "negated": Negated,
        "redirect": Redirect, "expert": Expert, "deflect": Deflect,
        "steer": Steer,
    },
    "combine": {
        "weighted": Weighted, "turns": Turns, "adaptive": Adaptive, "norm-fixed": NormFixed, "bargain": Bargain,
        "pcgrad": PCGrad,
    },
    "regularise": {
        "saliency": Saliency, "fisher-ratio": FisherRatio, "elastic": Elastic, "posterior": Posterior,
    },
}  # fmt: skip
"""Parts by name, to put another into a recipe."""
