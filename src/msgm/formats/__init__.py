"""Model folders and files, read into a `ScoreModel` and written back: one file a family.

`load` finds out whose model it is; `describe` says how it was read.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import UserError
from ..folders import alone
from ..model.score import ScoreModel
from ..process.sde import DDPM, VESDE, VPSDE
from . import diffusers, edm, module, native, score_sde
from .networks import config_of
from .publish import refuse_half_written
from .tensors import stored, unpickle

__all__ = ["Reading", "describe", "load", "save"]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How models of other families are read, where their files leave it open.

    Args:
        weights: which of several files of weights.
        class_label: which class of a class-conditional model.
        size: of the images of a checkpoint of score_sde.
        process: of such a checkpoint, ve, vp or ddpm.
        model_factory: function that makes a model of weights, as package.module:function.
    """

    weights: str | None = None
    class_label: int | None = None
    size: int | None = None
    process: str | None = None
    model_factory: str | None = None

    def load(self, path: str | os.PathLike[str]) -> ScoreModel:
        """`load` with these choices."""
        options = {key: value for key, value in asdict(self).items() if key != "model_factory"}
        return load(path, **options, module_factory=self.model_factory)

    def beside(self, path: str | os.PathLike[str]) -> Reading:
        """The same for one of several models: a folder of ours is asked nothing that its files say."""
        root = Path(path)
        ours = str(path) == native.EMBEDDED or (root / native.SCORE).exists() or (root / native.RECORD).exists()
        return Reading(model_factory=self.model_factory) if ours else self


def load(
    path: str | os.PathLike[str],
    *,
    weights: str | None = None,
    class_label: int | None = None,
    size: int | None = None,
    process: str | None = None,
    module_factory: str | None = None,
) -> ScoreModel:
    """The model in a folder of ours or of diffusers', of a name on the hub that is in the local cache, or in a file.

    ``demo`` names the model that ships in the package. A foreign folder without a scheduler is read as DDPM with its
    authors' betas. A model is asked once about two images before it is given back.

    Args:
        path: folder, file or name.
        weights: which file or folder of weights, where a foreign folder has several.
        class_label: which class, of a class-conditional network.
        size: of the images of a checkpoint of score_sde, by default 32.
        process: of such a checkpoint: ve, vp or ddpm, by default what its network says.
        module_factory: ``package.module:function`` that makes the model of the file's path (`formats.module`).

    Raises:
        UserError: names the file that is missing, broken, half-written, of another model or of a family that is not
            read, and says what to do.
    """
    name, root = str(path), native.embedded("model") if str(path) == native.EMBEDDED else Path(path)
    chosen = {"weights": weights, "class_label": class_label, "size": size, "process": process}
    if root.is_file():
        model = _file(root, module_factory, chosen)
    else:
        if not root.is_dir():
            if name.count("/") != 1 or name.startswith((".", "/", "~")):
                raise UserError(f"no model folder {root}; give the path of one, or 'demo' for the model in the package")
            root = diffusers.in_cache(name)
        refuse_half_written(root)
        if (root / native.SCORE).exists() or (root / native.RECORD).exists():
            _only(chosen, root)
            model = native.read(root, module_factory=module_factory)
        else:
            model = diffusers.read(root, **_only(chosen, root, "weights", "class_label"))
    model.eval()
    _try(model, name)
    return model


def _only(chosen: dict[str, Any], root: Path, *names: str) -> dict[str, Any]:
    """What was chosen, by the names that mean something to this kind of model; UserError for others."""
    given = {name: value for name, value in chosen.items() if value is not None}
    if other := sorted(given.keys() - set(names)):
        raise UserError(f"{root}: {', '.join(other)} cannot be chosen of this model; leave it out")
    return given


def _file(path: Path, factory: str | None, chosen: dict[str, Any]) -> ScoreModel:
    """The model in a file of weights."""
    if factory is not None:
        _only(chosen, path)
        return module.read(path, factory)
    read = stored(path).read() if path.suffix == ".safetensors" else unpickle(path)
    found: Mapping[str, Any] = read if isinstance(read, Mapping) else {}
    if any("all_modules." in str(name) for name in found):
        found = {"model": found}
    if score_sde.belongs(found):
        return score_sde.read(found, path, **_only(chosen, path, "size", "process"))
    if edm.belongs(found):
        return edm.read(found, path, **_only(chosen, path, "class_label"))
    raise UserError(
        f"{path} is no checkpoint of score_sde or EDM, and weights alone do not say of what network they are; name the "
        f"function that builds it, as package.module:function",
        option="model_factory",
    )


def _try(model: ScoreModel, name: str) -> None:
    """One evaluation, so that a network which does not work is found before any work. It draws no random number."""
    if min(model.shape) < 1:
        raise UserError(f"{name}: images of {'x'.join(map(str, model.shape))} are none; give their size", option="size")
    size = torch.Size((2, *model.shape))
    x = torch.linspace(-1, 1, size.numel(), device=model.device).reshape(size)
    try:
        with torch.no_grad():
            out = model.noise(x, torch.tensor([0.5, 0.9], device=model.device))
    except Exception as error:  # whatever a network makes of images that it does not take
        words = " ".join(str(error).split())[:120]
        raise UserError(
            f"{name}: its network does not take images of {'x'.join(map(str, model.shape))} ({words}); check "
            f"their size against its depth"
        ) from None
    if out.shape != size:
        raise UserError(
            f"{name}: its network gives {tuple(out.shape[1:])} for images of {model.shape}; check its out_channels"
        )
    if not bool(out.isfinite().all()):
        raise UserError(f"{name}: its network gives values that are not finite; the model is broken")


def save(model: ScoreModel, folder: str | os.PathLike[str], *, overwrite: bool = False, half: bool = False) -> None:
    """Save a model folder, in one step; ``half`` stores float16 weights.

    Raises `UserError` where the folder exists and ``overwrite`` is false, and where a file in it is not ours.
    """
    config_of(model.network)
    out = Path(folder)
    with alone(out, overwrite=overwrite, size=sum(value.nbytes for value in model.state_dict().values())):
        native.write_model(model, out, half=half)


def describe(model: ScoreModel) -> str:
    """One line: family, process, its constants, what is predicted, size, and which weights."""
    origin, sde = model.origin, model.sde
    if isinstance(sde, DDPM):
        betas = "betas of its own" if sde.betas else f"{sde.schedule} betas {sde.beta_start:g} to {sde.beta_end:g}"
        process = f"DDPM of {sde.steps} steps, {betas}{', zero terminal SNR' if sde.zero_snr else ''}"
    elif isinstance(sde, VESDE):
        process = f"VE, sigma {sde.sigma_min:g} to {sde.sigma_max:g}"
    else:
        assert isinstance(sde, VPSDE)
        process = f"{type(sde).__name__.removesuffix('SDE')}, beta {sde.beta_min:g} to {sde.beta_max:g}"
    count = sum(p.numel() for p in model.parameters())
    parts = [
        origin.family if origin else "made here",
        process,
        f"predicts {model.prediction}",
        "x".join(map(str, model.shape)),
        f"{count / 1e6:.3g} M weights{f' ({origin.weights})' if origin else ''}",
        *(origin.notes if origin else ()),
    ]
    return "; ".join(parts)
