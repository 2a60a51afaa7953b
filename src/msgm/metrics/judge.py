"""The judge: a classifier that may also answer "this is none of them", with its own errors on record."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.nn import functional

from ..errors import UserError, in_range
from ..folders import Making
from ..formats.native import EMBEDDED, embedded
from ..formats.tensors import fill, fit, stored
from ..model.modes import evaluating
from ..model.space import Space
from ..progress import bar
from ..storage import write_bytes
from .judge_config import LARGEST_SIDE, LEAST_SIDE, MOST_CLASSES, MOST_WIDE, read_config
from .junk import KINDS, JunkMaker

if TYPE_CHECKING:
    from ..data import Images

JUNK = -1
"""The label of what is no class's image; `Judge.predict` answers with it."""

CONFIG, WEIGHTS = "config.json", "model.safetensors"
MADE = Making(kind="judge", names=(CONFIG, WEIGHTS), anew=True)


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


class Judge(nn.Module):
    """A CNN over images (B, C, H, W) with one output per class and one for junk, the last.

    Images are uint8 pixels, or floats in the judge's own ``space``, whatever the space of the model that made them.

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
        if shape[1] != shape[2] or not LEAST_SIDE <= shape[1] <= LARGEST_SIDE:
            raise UserError(
                f"the judge takes square images of {LEAST_SIDE} to {LARGEST_SIDE} pixels a side, got "
                f"{shape[1]}x{shape[2]}; resize",
                option="data.size",
            )
        self.shape = shape
        self.names = tuple(names) if names else tuple(str(label) for label in self.classes)
        if len(self.names) != len(self.classes):
            raise UserError(f"{len(self.classes)} classes need as many names, got {len(self.names)}")
        self.column = column
        self.network = JudgeCNN(shape[0], shape[1], len(self.classes) + 1, width)
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
    def accuracy(self) -> float:
        """Share of real test images given their own label; a real image called junk counts as wrong."""
        return float(self.confusion.diagonal()[:-1].sum() / self.confusion[:-1].sum())

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
        with torch.device("meta"):
            judge = cls(
                config["classes"],
                tuple(config["shape"]),
                names=config["names"],
                column=config["column"],
                width=config["network"]["width"],
            )
        if hashlib.sha256((path / WEIGHTS).read_bytes()).hexdigest() != config["weights_sha256"]:
            raise UserError(
                f"{path / WEIGHTS} is truncated or not the file that {CONFIG} belongs to; copy the folder again"
            )
        fit(judge.network, given, path / CONFIG)
        judge.network.to_empty(device="cpu")
        fill(judge.network, given)
        judge.record = config["record"]
        return judge.eval()


RANGES = {
    "epochs": (1, 10**5),
    "batch": (1, 2**20),
    "lr": (0.0, 1.0),
    "junk_share": (0.0, 0.95),
    "width": (1, MOST_WIDE),
    "seed": (0, 2**63 - 1),
}
"""From and to, both allowed."""


@dataclass(frozen=True, kw_only=True)
class JudgeSettings:
    """How `train_judge` trains.

    Args:
        epochs: passes over the data.
        batch: real images a step; junk comes on top.
        lr: the rate that the cosine starts from.
        junk_share: part of each batch that is junk.
        flip: mirror images at random: right for photographs, wrong for digits.
        width: channels of the first stage.
        seed: of everything random.
    """

    epochs: int = 16
    batch: int = 128
    lr: float = 6e-3
    junk_share: float = 0.3
    flip: bool = False
    width: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch, self.width) < 1 or not self.lr > 0 or not 0 < self.junk_share < 1:
            raise UserError(f"epochs, batch, width and lr must be positive and junk_share between 0 and 1; got {self}")
        in_range(self, RANGES)


def train_judge(
    train: Images,
    test: Images,
    settings: JudgeSettings | None = None,
    *,
    column: str = "label",
    names: Sequence[str] | None = None,
    device: str = "cpu",
    progress: bool = True,
) -> Judge:
    """Train a judge of ``column`` on ``train``; measure it on ``test``: real images, and junk made from them.

    AdamW; the rate rises for a fifth of the steps and falls along a cosine. Real images are turned, scaled
    and shifted a little and get a little noise, so that a clean sample beside the data is accepted; junk
    (`JunkMaker`) is made afresh for every batch. The weights are rounded to half precision *before* they are
    measured: what ``save(half=True)`` stores is what the record says. Everything random comes from
    ``settings.seed``. ``names`` are by default the data's own names of the labels. Raises UserError if the
    two sets do not fit together.
    """
    settings = settings or JudgeSettings()
    truth, test_truth = _column(train, column), _column(test, column)
    classes = truth.unique().tolist()
    if train.shape != test.shape or not set(test_truth.unique().tolist()) <= set(classes):
        raise UserError(
            f"train and test must have one shape and the same classes of {column!r}; train has {train.shape} "
            f"{classes}, test {test.shape} {test_truth.unique().tolist()}"
        )
    if names is None and column == "label" and train.label_names.keys() >= set(classes):
        names = [train.label_names[label] for label in classes]
    draw = torch.Generator(device=device).manual_seed(settings.seed)
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        judge = Judge(classes, train.shape, names=names, column=column, width=settings.width).to(device)
    # All that is random is drawn, and all junk made, where the judge is trained; a GPU keeps the images, too.
    target = torch.searchsorted(torch.tensor(classes), truth).to(device)
    there = None if device == "cpu" else train.rows().to(device)
    junk, test_junk = (_junk_maker(data, column, draw) for data in (train, test))
    extra = max(1, round(settings.batch * settings.junk_share / (1 - settings.junk_share)))
    per_epoch = max(1, len(train) // settings.batch)
    total = settings.epochs * per_epoch
    optimizer = torch.optim.AdamW(judge.parameters(), lr=settings.lr, weight_decay=0.02, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, 5 * (step + 1) / total) * (1 + math.cos(math.pi * step / total)) / 2
    )
    with bar("Training the judge", total, show=progress) as tick:
        for step in range(total):
            if step % per_epoch == 0:
                order = torch.randperm(len(train), generator=draw, device=device)
            index = order[step % per_epoch * settings.batch :][: settings.batch]
            pixels = train.rows(index) if there is None else there[index]
            real = _vary(judge.space.to_model(pixels, draw), settings.flip, draw)
            x = torch.cat([real, junk.mixture(extra, draw)])
            y = functional.pad(target[index], (0, extra), value=len(classes))
            loss = functional.cross_entropy(judge(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            tick(1)
    if not bool(loss.isfinite()):
        raise UserError(f"the judge's training diverged (its loss is {float(loss)}); lower lr", option="lr")
    with torch.no_grad():
        for value in judge.state_dict().values():
            if value.is_floating_point():
                value.copy_(value.half())
    judge.eval().record = {
        **_measure(judge, test.rows(), test_truth, test_junk, draw),
        "settings": asdict(settings),
        "data": {part: data.to_dict() for part, data in (("train", train), ("test", test))},
        "versions": _versions(),
    }
    return judge


def _junk_maker(data: Images, column: str, generator: torch.Generator) -> JunkMaker:
    some = torch.randperm(len(data), generator=generator, device=generator.device)[:2000].cpu()
    images, labels = Judge.space.to_model(data.rows(some)), data.columns[column][some]
    return JunkMaker(images.to(generator.device), labels.to(generator.device))


def _measure(
    judge: Judge, images: Tensor, truth: Tensor, junk: JunkMaker, generator: torch.Generator
) -> dict[str, Any]:
    """Confusion on real images, and on 500 junk images of each kind."""
    verdicts = {kind: judge.predict(junk.make(kind, 500, generator)) for kind in KINDS}
    labels = torch.tensor([*judge.classes, JUNK])
    said = torch.cat([judge.predict(images), *(verdict.cpu() for verdict in verdicts.values())])
    true = torch.cat([truth, torch.full((len(said) - len(images),), JUNK)])
    confusion = [[int(((true == row) & (said == column)).sum()) for column in labels] for row in labels]
    return {
        "confusion": confusion,
        "junk_recall": {kind: float((verdict == JUNK).float().mean()) for kind, verdict in verdicts.items()},
    }


def _vary(x: Tensor, flip: bool, generator: torch.Generator) -> Tensor:
    """Turn (up to 12 degrees), scale (10 %), shift (7 %) and, in half the images, add noise of up to 0.1."""
    n = len(x)

    def uniform(low: float, high: float) -> Tensor:
        drawn: Tensor = torch.empty(n, device=x.device).uniform_(low, high, generator=generator)
        return drawn

    angle, size = uniform(-0.21, 0.21), uniform(0.9, 1.1)
    mirror = torch.where(uniform(-1, 1) < 0, -1.0, 1.0) if flip else torch.ones(n, device=x.device)
    cos, sin = size * angle.cos(), size * angle.sin()
    rows = [cos * mirror, -sin, uniform(-0.14, 0.14), sin * mirror, cos, uniform(-0.14, 0.14)]
    grid = functional.affine_grid(torch.stack(rows, 1).view(n, 2, 3), list(x.shape), align_corners=False)
    warped = functional.grid_sample(x, grid, padding_mode="border", align_corners=False)
    # One in four stays as it is: interpolation softens, and the judge is asked about sharp images.
    moved: Tensor = torch.where(uniform(0, 1).view(n, 1, 1, 1) < 0.75, warped, x)
    noise = uniform(-0.1, 0.1).clamp(min=0).view(n, 1, 1, 1)
    return moved + noise * torch.randn(x.shape, generator=generator, device=x.device)


def _column(data: Images, column: str) -> Tensor:
    if column not in data.columns:
        raise UserError(f"{data.name} has no column {column!r}; it has {', '.join(data.columns) or 'none'}")
    return data.columns[column]


def _versions() -> dict[str, str]:
    try:
        own = version("msgm")
    except PackageNotFoundError:
        own = "not installed"
    return {"msgm": own, "torch": torch.__version__, "python": platform.python_version()}
