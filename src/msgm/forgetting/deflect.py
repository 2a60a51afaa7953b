"""Away from the forget data, from where the model was before."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from ..errors import UserError
from ..model.score import ScoreModel
from .batch import Noised, Start
from .terms import ForgetTerm, Weighting, aimed


@dataclass(frozen=True, kw_only=True)
class Deflect(ForgetTerm):
    """On the forget data, what the model said before, moved away from them: at ``eps_0 + c (eps_0 - eps)``.

    eps_0 is the prediction of the model before unlearning (`prepare`), c is ``contrast``. The mean of the target is
    ``eps_0 + c (eps_0 - E_f[eps | x])``; of a model of all data, ``eps_0 = P_g m_g + P_f m_f``, it is

        m_f + (1 + c) P_g (m_g - m_f),    P_g = P(retain | x),    m = E[eps | x] of each set.

    So it turns a path while it is still undecided, and asks for nothing (``eps_0``) where x can only be a forget image:
    there is nothing to recall. It is ESD's target (`Expert`), with the noise that is there in place of an expert of it.
    The loss is bounded.
    """

    contrast: float = 8.0
    weighting: Weighting = "image"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.contrast < math.inf:
            raise UserError(f"contrast must be 0 or more, and finite; got {self.contrast}")

    @property
    def needs(self) -> str:
        return "a copy of the model"

    def prepare(self, start: Start) -> Deflected:
        """The term with the model as it is before the first step."""
        return Deflected(**asdict(self), before=start.copy())

    def each(self, batch: Noised, retained: Tensor) -> Tensor:
        raise UserError("the model before is not known; use unlearn, or Deflect.prepare")


@dataclass(frozen=True, kw_only=True, eq=False)
class Deflected(Deflect):
    """`Deflect` with the model that it needs."""

    before: ScoreModel

    def each(self, batch: Noised, retained: Tensor) -> Tensor:
        with torch.no_grad():
            before = self.before(batch.x, batch.t)
        return aimed(batch, before + self.contrast * (before - batch.eps), self.weighting)
