"""What edited images are worth beside their originals: errors of pixels, and the judge's verdicts."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from ..data import Images, Request
from ..errors import UserError
from .judge import Judge
from .rates import Rate, wilson
from .shares import Shares, forget_classes, judged_shares
from .similarity import psnr
from .worth import by_rules


@dataclass(frozen=True, kw_only=True)
class Restored:
    """One set of edited images: how close they are to the originals, and what the judge sees in them."""

    images: int
    psnr: float
    """Mean over the images of their `psnr`, dB."""
    psnr_stderr: float | None
    """Its standard error; None for one image."""
    accuracy: Rate | None = None
    """Share that the judge gives the class of the original: its label, or else the judge's word on it."""
    accuracy_before: Rate | None = None
    """The same of the originals themselves; None where the judge's word on them is the reference."""
    shares: Shares | None = None
    """Shares in the forget classes, junk, and the rest; None without a request."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        shares = asdict(self.shares) if self.shares else {}
        return {key: value for key, value in {**asdict(self), **shares}.items() if key != "shares"}

    def __str__(self) -> str:
        error = "" if self.psnr_stderr is None else f" ± {self.psnr_stderr:.2f}"
        parts = [f"{self.images} images, PSNR {self.psnr:.2f}{error} dB"]
        if self.accuracy:
            before = f" (originals {self.accuracy_before.value:.1%})" if self.accuracy_before else ""
            parts.append(f"class of the original {self.accuracy}{before}")
        if self.shares:
            parts.append(f"UR {self.shares.unlearning_ratio}, junk {self.shares.junk.value:.1%}")
        return "; ".join(parts)


def restored(
    before: Images,
    after: Tensor,
    *,
    region: Tensor | None = None,
    judge: Judge | None = None,
    request: Request | None = None,
) -> Restored:
    """Compare edited images uint8 (N, C, H, W) with their originals.

    ``region``, bool (H, W): the pixels that were filled in, to which `psnr` is then confined. The ``judge`` is
    shown whole images; with a ``request`` it also says which are in the forget classes.
    """
    values = psnr(before.rows(), after, region)
    found: dict[str, Any] = {
        "images": len(after),
        "psnr": float(values.mean()),
        "psnr_stderr": float(values.std() / math.sqrt(len(values))) if len(values) > 1 else None,
    }
    if judge is not None:
        verdict, truth = judge.predict(after), judge.predict(before.rows())
        if judge.column in before.columns:
            label = judge.labels(before)
            found["accuracy_before"] = _agreement(truth, label)
            truth = label
        found["accuracy"] = _agreement(verdict, truth)
        if request is not None:
            found["shares"] = judged_shares(verdict, forget_classes(request, judge), judge.classes)
    return Restored(**found)


def check_judge(judge: Judge, images: Images, request: Request | None) -> None:
    """Raise `UserError`, before any work, for a judge of other images, or of other classes than the request."""
    if judge.shape != images.shape:
        raise UserError(
            f"the judge takes images of shape {judge.shape}, not {images.shape}; name another", option="judge"
        )
    if request is None:
        return
    forget = forget_classes(request, judge)
    if not 0 < len(forget) < len(judge.classes):
        raise UserError(f"{request} selects none or all of the judge's classes; use a judge of its column")
    meant = by_rules(request, images)
    if not set(judge.labels(images)[meant].tolist()) & set(judge.classes) <= forget:
        raise UserError(
            f"{request} means other classes of the images than of the judge, which numbers them otherwise; write the "
            "rule with names",
            option="judge",
        )


def _agreement(a: Tensor, b: Tensor) -> Rate:
    return wilson(int((a == b).sum()), len(a))
