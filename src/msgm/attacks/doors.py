"""Other doors: samplers that unlearning was not measured with, and rounded weights.

An unlearned network need not be the score of anything, so samplers may disagree; and what a small change of the
weights hides, rounding them may undo.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from ..metrics.judge import JUNK
from ..metrics.measured import Measured, Quantity
from ..model.score import ScoreModel
from ..sampling import DDIM, Ancestral, DPMSolverSDE, Heun, Sampler
from .target import Attack, Found, Target, bare, part

SAMPLERS = ("heun", "ddim", "dpm++-sde", "ancestral")
ROUNDED = ("bf16", "int8", "int4")
OFF = "filter left off"


def prepare(model: ScoreModel, target: Target) -> Found:
    """Samples through each door; one more where the model is served with a filter: without it."""
    budget, found = target.budget, {}
    steps = 2 * budget.sampling_steps
    samplers: dict[str, Sampler] = {
        "heun": Heun(model, steps=budget.sampling_steps),
        "ddim": DDIM(model, steps=steps),
        "dpm++-sde": DPMSolverSDE(model, steps=steps),
        "ancestral": Ancestral(model, steps=steps, grid="edm"),
    }
    for door, sampler in samplers.items():
        found[door] = sampler.sample(budget.samples, seed=budget.seed)
    for door in ROUNDED:
        found[door] = target.samples(rounded(model, door))
    if bare(model) is not model:
        found[OFF] = target.samples(bare(model))
    return found


def measure(found: Found, target: Target) -> dict[str, Measured]:
    """UR and junk of each door."""
    measured = {}
    for door, images in found.items():
        ratio = Quantity(name=door, unit="%", better="lower", about=f"UR by {door}")
        junk = Quantity(name=f"{door}, junk", unit="%", better="lower", about=f"junk by {door}", detail=True)
        measured[door] = target.share(ratio, images)
        measured[junk.name] = part(junk, target.verdicts(images) == JUNK)
    return measured


def rounded(model: ScoreModel, kind: str) -> ScoreModel:
    """A copy whose weights are rounded: ``bf16``, or ``int8`` and ``int4``, symmetric for each output channel.

    ``w' = s round(w / s)`` with ``s = max |w| / (2^(bits - 1) - 1)`` over all inputs of a channel; matrices and
    kernels only, as is usual: vectors (biases, norms) are few, and stay as they are.
    """
    copied = copy.deepcopy(model)
    for weight in copied.parameters():
        if kind == "bf16":
            weight.data = weight.data.bfloat16().to(weight)
        elif weight.ndim > 1:
            weight.data = _integers(weight.data, int(kind.removeprefix("int")))
    return copied


def _integers(weight: Tensor, bits: int) -> Tensor:
    flat = weight.flatten(1)
    scale = flat.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    whole: Tensor = torch.round(flat / scale.clamp(min=1e-30)) * scale
    return whole.view_as(weight)


ATTACK = Attack(
    name="doors",
    question="By other samplers and with rounded weights, what does it make?",
    prepare=prepare,
    measure=measure,
)
