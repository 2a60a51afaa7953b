"""Exact likelihoods of test images, set by set, each with its error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...data import Images, Request
from ...errors import UserError
from ...likelihood import check_bound, check_settings, log_likelihood, variational_bound
from ...model.score import ScoreModel
from ...progress import bar
from ..core.parts import parts


def likelihoods(
    model: ScoreModel,
    images: Images,
    *,
    request: Request | None = None,
    n: int = 100,
    seed: int = 0,
    how: Mapping[str, Any] | None = None,
    bound: bool = False,
    bound_steps: int | None = None,
) -> dict[str, dict[str, Any]]:
    """Mean bits/dim of the first images of each set, its standard error, and how far they are to be believed.

    Args:
        model: whose likelihoods.
        images: to be measured.
        request: parts them.
        n: images of each set.
        seed: of probes, dequantisation and the bound's noise.
        how: settings of `log_likelihood`.
        bound: DDPM's variational bound as well.
        bound_steps: steps of the chain drawn for it; by default all.

    Raises UserError, before any work, for settings that `log_likelihood` or `variational_bound` does not take.
    """
    how = dict(how or {})
    if n < 1:
        raise UserError(f"n must be 1 or more; got {n}")
    sets = parts(images, request)
    first = images.rows(slice(1))
    check_settings(model, first, **how)
    if bound:
        check_bound(model, first, steps=bound_steps)
    found: dict[str, dict[str, Any]] = {}
    for key, part in sets.items():
        pixels = part.rows(slice(n)).to(model.device)
        with bar(f"likelihood of {key} images", len(pixels)) as tick:
            result = log_likelihood(model, pixels, **how, seed=seed, tick=tick)
        mean, stderr = result.mean()
        found[key] = {
            "bits_per_dim": mean,
            "stderr": stderr,
            "doubling": float(result.doubling.mean()),
            "reliable": result.reliable,
            "nfe": float(result.nfe.mean()),
            "unfinished": int((~result.finished).sum()),
            "images": result.values.tolist(),
        }
        if bound:
            with bar(f"variational bound of {key} images", len(pixels)) as tick:
                above = variational_bound(model, pixels, steps=bound_steps, seed=seed, tick=tick)
            mean, stderr = above.mean()
            terms = {name: float(getattr(above, name).mean()) for name in ("prior", "diffusion", "decoder")}
            found[key]["bound"] = {"bits_per_dim": mean, "stderr": stderr, **terms, "nfe": above.nfe}
    return found
