"""Measures, and the numbers they give: each with its error; the judge, and what it must call junk."""

from .distances import frechet_distance
from .judge import JUNK, Judge
from .judge_training import JudgeSettings, train_judge
from .measured import Measure, Measured
from .rates import Rate, wilson
from .shares import Shares, judged_shares, unlearning_ratio

__all__ = [
    "JUNK",
    "Judge",
    "JudgeSettings",
    "Measure",
    "Measured",
    "Rate",
    "Shares",
    "frechet_distance",
    "judged_shares",
    "train_judge",
    "unlearning_ratio",
    "wilson",
]
