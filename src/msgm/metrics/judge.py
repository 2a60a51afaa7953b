"""The judge: a classifier that may also answer "this is none of them", with its own errors on record."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.nn import functional

from ..data import Images
from ..errors import UserError
from ..folders import Making
from ..formats.native import EMBEDDED, embedded
from ..formats.tensors import fill, fit, stored
from ..model.modes import evaluating
from ..model.space import Space
from ..storage import write_bytes
from .clip import ClipNetwork
from .judge_config import LARGEST_SIDE, LEAST_SIDE, MOST_CLASSES, read_config

PROMPT = "a photo of a {}"
JUNK = -1
"""The label of what is no class's image; `Judge.predict` answers with it."""
UNKNOWN = -2
"""The label of images of a class that the judge does not know: it never answers with it."""

CONFIG, WEIGHTS = "config.json", "model.safetensors"
MADE = Making(kind="judge", names=(CONFIG, WEIGHTS), anew=True)


def check_sides(height: int, width: int) -> None:
    """Raise UserError for images that no judge takes."""
    if height != width or not LEAST_SIDE <= height <= LARGEST_SIDE:
        raise UserError(
            f"the judge takes square images of {LEAST_SIDE} to {LARGEST_SIDE} pixels a side, got {height}x{width}; "
            "resize",
            option="data.size",
        )


class JudgeCNN(nn.Module):
    """A small classifier ``(B, C, H, W) -> (B, classes)``; ``features`` is its last hidden layer, ``(B, 128)``."""

    def __init__(self, channels: int, size: int, classes: int, width: int = 32) -> None:
        super().__init__()
        self.config: dict[str, Any] = {"channels": channels, "size": size, "classes": classes, "width": width}
        stages: list[nn.Module] = []
        before = channels
        for level in range(max(2, int(math.log2(size)) - 2)):
            after = width * min(2**level, 4)
            stages += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
            stages += [nn.Conv2d(after, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
            before = after
        self.stages = nn.Sequential(*stages)
        self.hidden = nn.Linear(before * 16, 128)
        self.out = nn.Linear(128, classes)

    def features(self, x: Tensor) -> Tensor:
        """Activations of the last hidden layer, (B, 128)."""
        h = nn.functional.adaptive_avg_pool2d(self.stages(x), 4).flatten(1)
        return nn.functional.relu(self.hidden(h))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(self.features(x))
        return out


def judge_bytes(channels: int, size: int, width: int, classes: int = 1000) -> int:
    """About how many bytes a judge takes on the disk, with what replaces it while it is written."""
    with torch.device("meta"):
        network = JudgeCNN(channels, size, classes, width)
    return 2 * sum(int(value.nbytes) for value in network.state_dict().values())


class Judge(nn.Module):
    """A CNN over images (B, C, H, W) with one output per class and one for junk, the last.

    Images are uint8 pixels, or floats in the judge's own ``space``, whatever the space of the model that made them.

    With ``clip`` (a folder, or a name on the hub) the network is CLIP's, which knows the classes by their names in a
    ``prompt``, and is trained on nothing.

    ``classes`` are the label values that the outputs stand for, ``names`` words for them. ``record`` tells
    how the judge was made and how often it errs (`train_judge` fills it); it is saved with the weights.
    """

    space: ClassVar[Space] = Space()

    def __init__(
        self,
        classes: Sequence[int],
        shape: tuple[int, ...],
        *,
        names: Sequence[str] | None = None,
        column: str = "label",
        width: int = 16,
        clip: str | None = None,
        prompt: str = PROMPT,
    ) -> None:
        super().__init__()
        self.classes = tuple(int(label) for label in classes)
        if len(set(self.classes)) != len(self.classes) or len(self.classes) < 2 or JUNK in self.classes:
            raise UserError(
                f"a judge needs two or more distinct classes, none of them {JUNK} (junk); "
                f"column {column!r} gives {list(self.classes)}"
            )
        if len(self.classes) > MOST_CLASSES:
            raise UserError(f"a judge has at most {MOST_CLASSES} classes; column {column!r} gives {len(self.classes)}")
        check_sides(*shape[1:])
        self.shape = shape
        self.names = tuple(names) if names else tuple(str(label) for label in self.classes)
        if len(self.names) != len(self.classes):
            raise UserError(f"{len(self.classes)} classes need as many names, got {len(self.names)}")
        self.column = column
        self.network = (
            JudgeCNN(shape[0], shape[1], len(self.classes) + 1, width)
            if clip is None
            else ClipNetwork(clip, self.names, prompt)
        )
        self.record: dict[str, Any] = {}

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, classes + 1). Values are clamped to the pixels' range: the judge sees what a picture can show."""
        out: Tensor = self.network(x.clamp(*self.space.range))
        return out

    def probabilities(self, x: Tensor, batch: int = 500) -> Tensor:
        """P(class | x) in the order of ``classes``, then P(junk | x): (N, classes + 1).

        An image with a value that is not finite is junk with certainty.
        """
        junk = functional.one_hot(torch.tensor(len(self.classes)), len(self.classes) + 1)

        def judge(part: Tensor) -> Tensor:
            finite = part.flatten(1).isfinite().all(1, keepdim=True)
            return torch.where(finite, self(part.nan_to_num()).softmax(1), junk.to(part))

        return self._batched(judge, x, batch)

    def predict(self, x: Tensor, batch: int = 500) -> Tensor:
        """The most probable label *value* of each image, `JUNK` (-1) for junk: (N,) int64."""
        labels = torch.tensor([*self.classes, JUNK], device=x.device)
        return labels[self.probabilities(x, batch).argmax(1)]

    def labels(self, images: Images) -> Tensor:
        """The images' labels as this judge numbers them, (N,): by their names where both name them, else as they are.

        Images of a name that the judge does not know are `UNKNOWN`.
        """
        found = images.columns[self.column]
        own = dict(zip(self.names, self.classes, strict=True))
        names = images.label_names if self.column == "label" else {}
        if len(own) < len(self.names) or not own.keys() & set(names.values()):
            return found
        moved = found.clone()
        for value, name in names.items():
            moved[found == value] = own.get(name, UNKNOWN)
        return moved

    def counts(self, predicted: Tensor) -> dict[str, int]:
        """How many of the label values ``predicted`` (N,) are of each class, by its name, and how many ``junk``."""
        names, labels = (*self.names, "junk"), (*self.classes, JUNK)
        if len(set(names)) < len(names):
            # Two classes of one name, or one called junk, are told apart by their labels.
            names = (*(f"{name} ({label})" for name, label in zip(self.names, self.classes, strict=True)), "junk")
        return {name: int((predicted == label).sum()) for name, label in zip(names, labels, strict=True)}

    def log_retain(self, forget: Collection[int], space: Space | None = None) -> Callable[[Tensor], Tensor]:
        """x (B, C, H, W) -> log P(no class of ``forget`` | x, no junk), (B,): differentiable, for `filters.Guided`.

        x lies in ``space``, that of the model which is guided; by default in the judge's own.

        Junk is left out: a denoised image halfway is not yet a picture, and must not be driven to look like one.
        """
        retained = [index for index, label in enumerate(self.classes) if label not in forget]
        if not 0 < len(retained) < len(self.classes) or not set(forget) <= set(self.classes):
            raise UserError(f"forget classes {sorted(forget)} must be some, not all, of the judge's {self.classes}")

        def log_retain(x: Tensor) -> Tensor:
            logits: Tensor = self(x if space is None else space.moved(x, self.space))
            return logits[:, retained].logsumexp(1) - logits[:, : len(self.classes)].logsumexp(1)

        return log_retain

    def features(self, x: Tensor, batch: int = 500) -> Tensor:
        """Activations of the last hidden layer (N, 128), for `frechet_distance`."""
        return self._batched(lambda part: self.network.features(part.nan_to_num().clamp(*self.space.range)), x, batch)

    def _batched(self, function: Callable[[Tensor], Tensor], x: Tensor, batch: int) -> Tensor:
        pixels = x.dtype == torch.uint8
        if tuple(x.shape[1:]) != self.shape or not (pixels or x.is_floating_point()):
            raise UserError(
                f"the judge takes images of shape {self.shape}, uint8 or floating-point in [-1, 1], "
                f"got {x.dtype} {tuple(x.shape[1:])}; resize or convert them"
            )
        weight = next(self.parameters())
        with evaluating(self):
            parts = (self.space.to_model(part) if pixels else part for part in x.split(batch))
            return torch.cat([function(part.to(weight)) for part in parts]).to(x.device)

    @property
    def trained_on(self) -> str | None:
        """Name of the data it was trained on, where its record has it."""
        name: str | None = self.record.get("data", {}).get("train", {}).get("name")
        return name

    @property
    def accuracy(self) -> float:
        """Share of real test images given their own label; a real image called junk counts as wrong."""
        return float(self.confusion.diagonal()[:-1].sum() / self.confusion[:-1].sum())

    @property
    def balanced_accuracy(self) -> float:
        """The mean over the classes of the share of each one's real test images given their own label."""
        real = self.confusion[:-1].double()
        return float((real.diagonal() / real.sum(1)).nanmean())

    @property
    def confusion(self) -> Tensor:
        """Counts (classes + 1, classes + 1) on test data: row truth, column verdict; junk is last in both."""
        if "confusion" not in self.record:
            raise UserError("this judge has not been measured; make it with train_judge")
        return torch.tensor(self.record["confusion"])

    @property
    def real_called_junk(self) -> float:
        """Share of real test images called junk: a floor under every junk rate."""
        return float(self.confusion[:-1, -1].sum() / self.confusion[:-1].sum())

    @property
    def junk_recall(self) -> dict[str, float]:
        """For each kind of junk, made from test images, the share called junk."""
        recall: dict[str, float] = self.record.get("junk_recall", {})
        return recall

    def save(self, folder: str | os.PathLike[str], *, half: bool = False) -> None:
        """Write ``model.safetensors`` (in fp16 if ``half``) and ``config.json``, each complete or not at all.

        The configuration holds the hash of the weights: files that do not belong together are noticed.
        """
        state = {name: value.cpu().contiguous() for name, value in self.network.state_dict().items()}
        if half:
            state = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
        weights = save_tensors(state)
        config = {
            "classes": self.classes,
            "names": self.names,
            "column": self.column,
            "shape": self.shape,
            "network": self.network.config,
            "weights_sha256": hashlib.sha256(weights).hexdigest(),
            "record": self.record,
        }
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        write_bytes(path / WEIGHTS, weights)
        write_bytes(path / CONFIG, (json.dumps(config, indent=1) + "\n").encode())

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Judge:
        """The judge in ``folder``, in evaluation mode; ``demo`` names the one that ships in the package.

        Raises UserError naming the file if one is missing or damaged.
        """
        path = embedded("judge") if str(folder) == EMBEDDED else Path(folder)
        for name in (CONFIG, WEIGHTS):
            if not (path / name).is_file():
                raise UserError(f"{path / name} is missing; a judge's folder has {CONFIG} and {WEIGHTS}")
        config, given = read_config(path / CONFIG), stored(path / WEIGHTS)
        network = {key: value for key, value in config["network"].items() if key in ("width", "clip", "prompt")}
        with torch.device("cpu" if "clip" in network else "meta"):
            judge = cls(
                config["classes"], tuple(config["shape"]), names=config["names"], column=config["column"], **network
            )
        if hashlib.sha256((path / WEIGHTS).read_bytes()).hexdigest() != config["weights_sha256"]:
            raise UserError(
                f"{path / WEIGHTS} is truncated or not the file that {CONFIG} belongs to; copy the folder again"
            )
        fit(judge.network, given, path / CONFIG)
        if isinstance(judge.network, ClipNetwork):
            made = judge.network.text.clone()
            fill(judge.network, given)
            if not torch.allclose(made, judge.network.text, atol=2e-3):  # as far as half precision is
                raise UserError(f"{network['clip']} is not the CLIP that {path} was measured with; bring that one back")
        else:
            judge.network.to_empty(device="cpu")
            fill(judge.network, given)
        judge.record = config["record"]
        return judge.eval()
