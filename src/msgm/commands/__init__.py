"""What each command does, in terms of the library. `cli` reads the options from these signatures."""

from .comparing import sweep
from .making import train, train_judge, unlearn
from .measuring import demo, evaluate, methods, nll, sample

__all__ = ["demo", "evaluate", "methods", "nll", "sample", "sweep", "train", "train_judge", "unlearn"]
