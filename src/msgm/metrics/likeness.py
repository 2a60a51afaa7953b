"""How like real retained images the kept samples are: distances, precision and recall, density and coverage."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .distances import bootstrap, frechet_distance, kernel_distance
from .features import Features, features, features_of
from .manifold import density_coverage, precision_recall
from .measured import Measured
from .quantities import LIKENESS
from .subject import Subject

NEIGHBOURS = 5
"""Of a point, up to the one that its ball reaches to."""
DRAWS = 40
"""Of the bootstrap: enough for two ends of an interval to a fifth of its width."""


@dataclass(frozen=True)
class Likeness:
    """Measures in the features of the network that ``name`` says (`features.features`).

    A kept sample is one that the judge does not call forgotten. All but the distances depend on how many points there
    are of each set; of both sets as many are taken, at random, as the smaller has. Distances have bootstrap intervals;
    those of the shares (Wilson) are of the points that are counted, and take the balls around the others as they are.
    """

    name: str

    @property
    def names(self) -> tuple[str, ...]:
        """All six."""
        return tuple(LIKENESS)

    @cached_property
    def network(self) -> Features:
        """Read once."""
        return features(self.name)

    @cached_property
    def _known(self) -> dict[str, Tensor]:
        """Features of real images by their digest: those of one table are the same for each model."""
        return {}

    def _real(self, subject: Subject) -> Tensor:
        digest = subject.retained.digest
        if digest not in self._known:
            self._known[digest] = features_of(subject.retained, self.network, show=subject.progress).double()
        return self._known[digest]

    def measure(self, subject: Subject) -> dict[str, Measured]:
        """The six numbers; without a value where there are too few kept samples for any."""
        kept = ~torch.isin(subject.verdicts, torch.tensor(sorted(subject.forget)).to(subject.verdicts))
        real = self._real(subject)
        if min(int(kept.sum()), len(real)) <= NEIGHBOURS:
            why = f"{int(kept.sum())} kept samples and {len(real)} real images are too few"
            return {name: quantity.missing(why) for name, quantity in LIKENESS.items()}
        ours = torch.cat([self.network(part) for part in subject.pixels[kept.to(subject.pixels.device)].split(100)])
        ours = ours.cpu().double()
        found = dict[str, Measured]()
        for name, distance, unit in (("FD", frechet_distance, 1), ("KD", kernel_distance, 1000)):
            value, low, high = bootstrap(distance, ours, real, draws=DRAWS)
            found[name] = LIKENESS[name].of(unit * value, low=unit * low, high=unit * high, n=len(ours))
        ours, real = _equal(ours, real)
        precision, recall = precision_recall(real, ours, k=NEIGHBOURS)
        density, coverage = density_coverage(real, ours, k=NEIGHBOURS)
        shares = {"precision": (precision, ours), "recall": (recall, real), "coverage": (coverage, real)}
        found |= {name: LIKENESS[name].share(round(v * len(x)), len(x)) for name, (v, x) in shares.items()}
        found["density"] = LIKENESS["density"].of(density, n=len(ours))
        return {name: found[name] for name in LIKENESS}


def _equal(*sets: Tensor) -> list[Tensor]:
    """As many rows of each as the smallest has."""
    count, generator = min(map(len, sets)), torch.Generator().manual_seed(0)
    return [each[torch.randperm(len(each), generator=generator)[:count]] for each in sets]
