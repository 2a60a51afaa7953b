"""Any `torch.nn.Module`, by a function of the user's that makes it: ``package.module:function``.

The function is called with the path of the weights and returns a `ScoreModel`: the network, its process, what it
predicts and the shape of its images. What is saved is the network's own state dict; to read that again the function is
called with None, for a network whose weights are then filled in. It is code: it runs only where the user names it.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from ..errors import UserError
from ..model.score import Origin, ScoreModel
from .networks import Made


def read(path: Path, factory: str) -> ScoreModel:
    """The model that the function makes of the weights in ``path``. Raises UserError if it makes none."""
    model = make(factory, path)
    model.network = Made(model.network, factory)
    model.origin = Origin(family=f"module by {factory}", weights=path.name)
    return model


def make(factory: str, path: Path | None) -> ScoreModel:
    """What the function returns, which has to be a `ScoreModel`."""
    model = function(factory)(path)
    if not isinstance(model, ScoreModel):
        raise UserError(f"model factory {factory} returned a {type(model).__name__}; return a msgm.ScoreModel")
    return model


def function(factory: str) -> Callable[[Path | None], object]:
    """The function of this name; UserError if there is none."""
    module, colon, name = factory.partition(":")
    if not (module and colon and name):
        raise UserError(f"model factory {factory!r}: write package.module:function")
    try:
        found = getattr(import_module(module), name, None)
    except ImportError as error:
        raise UserError(f"model factory {factory!r}: {error}; is the package installed, or on PYTHONPATH?") from None
    if not callable(found):
        raise UserError(f"model factory {factory!r}: no function {name} in {module}")
    return found  # type: ignore[no-any-return]
