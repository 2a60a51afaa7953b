"""What each command does, in terms of the library. `cli` reads the options from these signatures."""

from .making import train, train_judge, unlearn
from .measuring import demo, evaluate, methods, nll, sample
from .reproducing import reproduce

__all__ = ["demo", "evaluate", "methods", "nll", "reproduce", "sample", "train", "train_judge", "unlearn"]
