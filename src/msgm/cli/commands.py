"""What each command does, in terms of the library. `cli` reads the options from these signatures."""

from .auditing import audit
from .comparing import sweep
from .editing import inpaint, reconstruct
from .listing import methods
from .making import train, train_judge, unlearn
from .measuring import demo, evaluate, nll, sample
from .pushing import push
from .reading import convert, inspect
from .reproducing import reproduce
from .requesting import request
from .showing import show

__all__ = [
    "audit",
    "convert",
    "demo",
    "evaluate",
    "inpaint",
    "inspect",
    "methods",
    "nll",
    "push",
    "reconstruct",
    "reproduce",
    "request",
    "sample",
    "show",
    "sweep",
    "train",
    "train_judge",
    "unlearn",
]
