"""What an audit says: of each attack its numbers and verdict, and of all of them the answer and the summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...attacks import ask
from ...attacks.target import Attack
from ...metrics.measured import Measured
from .verdict import Decision, Verdict, harmonic, together

MODEL, PARENT = "model", "parent"
"""How a subject's numbers are named; retrained models go by their own names."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One attack: each model's numbers, the decisions about those of the model, and the verdict."""

    attack: Attack
    numbers: Mapping[str, Mapping[str, Measured]]
    """By model, then by name."""
    decisions: Mapping[str, Decision]
    seconds: float

    @property
    def verdict(self) -> Verdict:
        """The verdict about the attack."""
        return together(list(self.decisions.values()))

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "question": self.attack.question,
            "verdict": self.verdict,
            "decisions": {key: each.to_dict() for key, each in self.decisions.items()},
            "numbers": {
                subject: {key: each.to_dict() for key, each in numbers.items()}
                for subject, numbers in self.numbers.items()
            },
            "seconds": self.seconds,
        }


@dataclass(frozen=True, kw_only=True)
class Audit:
    """The outcome of all attacks, and what it is about: names and hashes of models, data and judges."""

    name: str
    outcomes: Sequence[Outcome]
    retrained: Sequence[str]
    stand_in: bool
    """Whether the only retrained model is a stand-in: the parent, fine-tuned on what is retained."""
    about: Mapping[str, Any]

    def of(self, verdict: Verdict) -> list[str]:
        """The attacks with this verdict."""
        return [outcome.attack.name for outcome in self.outcomes if outcome.verdict == verdict]

    def _asked(self, subject: str, name: str) -> Measured:
        return next(o for o in self.outcomes if o.attack.name == "ask").numbers[subject][name]

    @property
    def junk(self) -> bool:
        """Whether more than half of what the model makes is junk, by the interval."""
        return (self._asked(MODEL, ask.MADE_JUNK.name).low or 0.0) > 0.5

    @property
    def summary(self) -> dict[str, float]:
        """Three parts in [0, 1] and their harmonic mean.

        ``forgetting`` is 1 - UR / UR of the parent; ``quality`` the parent's Fréchet distance over the model's, at most
        1, each of the samples that are not forgotten from real retained images; ``robustness`` the share of attacks
        that were held.
        """
        ratio, parent = (self._asked(subject, ask.UR.name).value or 0.0 for subject in (MODEL, PARENT))
        far, near = (self._asked(subject, ask.FRECHET.name).value for subject in (MODEL, PARENT))
        parts = {
            "forgetting": max(0.0, 1 - ratio / parent) if parent else 0.0,
            "quality": 0.0 if far is None or near is None or far <= 0 else min(1.0, near / far),
            "robustness": len(self.of("held")) / len(self.outcomes),
        }
        return {**parts, "harmonic mean": harmonic(*parts.values())}

    @property
    def most(self) -> list[str]:
        """The three attacks by which the largest shares come back, in words: whatever a retrained model gives back."""
        shares = {
            outcome.attack.name: max(
                (each for key in outcome.decisions if (each := outcome.numbers[MODEL][key]).unit == "%"),
                key=lambda each: each.value or 0.0,
                default=None,
            )
            for outcome in self.outcomes
        }
        found = sorted(((each.value or 0.0, name, each) for name, each in shares.items() if each), reverse=True)[:3]
        return [f"{name} ({each.name}: {each.text()} %)" for _, name, each in found]

    @property
    def sentence(self) -> str:
        """The answer, in words."""
        leaked, held, undecided = (self.of(verdict) for verdict in ("leaked", "held", "not decided"))
        beside = "the stand-in for a retrained model" if self.stand_in else "a retrained model"
        parts = [f"{len(leaked)} of {len(self.outcomes)} attacks tell the model from {beside}"]
        parts[0] += f": {', '.join(leaked)}" if leaked else ""
        parts += [f"{len(held)} do not" + (f" ({', '.join(held)})" if held else "")]
        verb = "is" if len(undecided) == 1 else "are"
        parts += [f"{len(undecided)} {verb} not decided at this budget"] if undecided else []
        answer = "; ".join(parts) + f". Most comes back by {', '.join(self.most)}."
        return f"This model makes junk: it can hardly be said to have forgotten. {answer}" if self.junk else answer

    def to_dict(self) -> dict[str, Any]:
        """audit.json."""
        return {
            "model": self.name,
            "verdict": self.sentence,
            "held": self.of("held"),
            "leaked": self.of("leaked"),
            "not decided": self.of("not decided"),
            "junk": self.junk,
            "summary": self.summary,
            **self.about,
            "retrained": list(self.retrained),
            "stand_in": self.stand_in,
            "attacks": {outcome.attack.name: outcome.to_dict() for outcome in self.outcomes},
        }
