"""Judging samples: the judge, what it must call junk, and rates with their errors."""

from .judge import JUNK, Judge, JudgeSettings, train_judge
from .shares import Rate, Shares, frechet_distance, judged_shares, unlearning_ratio, wilson

__all__ = [
    "JUNK",
    "Judge",
    "JudgeSettings",
    "Rate",
    "Shares",
    "frechet_distance",
    "judged_shares",
    "train_judge",
    "unlearning_ratio",
    "wilson",
]
