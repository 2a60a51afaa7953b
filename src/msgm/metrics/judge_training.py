"""How a judge is trained: on real images, and on junk that is made of them."""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import UserError, in_range
from ..progress import bar
from .judge import JUNK, PROMPT, Judge
from .judge_config import MOST_WIDE
from .junk import KINDS, JunkMaker

if TYPE_CHECKING:
    from ..data import Images


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
        balance: draw every class as often as the others: for attributes that few images have.
        width: channels of the first stage.
        seed: of everything random.
    """

    epochs: int = 16
    batch: int = 128
    lr: float = 6e-3
    junk_share: float = 0.3
    flip: bool = False
    balance: bool = False
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
    classes, names = _classes(train, test, column, names)
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
                order = _order(target, settings.balance, draw)
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


def zero_shot(
    train: Images,
    test: Images,
    *,
    clip: str,
    prompt: str = PROMPT,
    column: str = "label",
    names: Sequence[str] | None = None,
    device: str = "cpu",
    seed: int = 0,
) -> Judge:
    """A judge by CLIP, trained on nothing, measured as `train_judge` measures one: on ``test``, and on junk made of it.

    ``train`` says which classes there are. Raises UserError as `train_judge` and `clip.Clip` do.
    """
    classes, names = _classes(train, test, column, names)
    judge = Judge(classes, train.shape, names=names, column=column, clip=clip, prompt=prompt).to(device)
    draw = torch.Generator(device=device).manual_seed(seed)
    judge.eval().record = {
        **_measure(judge, test.rows(), _column(test, column), _junk_maker(test, column, draw), draw),
        "settings": {"clip": clip, "prompt": prompt, "seed": seed},
        "data": {part: data.to_dict() for part, data in (("train", train), ("test", test))},
        "versions": _versions(),
    }
    return judge


def _classes(
    train: Images, test: Images, column: str, names: Sequence[str] | None
) -> tuple[list[int], Sequence[str] | None]:
    """The classes of a column, and their names where there are any. UserError where the two sets do not agree."""
    classes, others = (_column(each, column).unique().tolist() for each in (train, test))
    if train.shape != test.shape or not set(others) <= set(classes):
        raise UserError(
            f"train and test must have one shape and the same classes of {column!r}; train has {train.shape} "
            f"{classes}, test {test.shape} {others}"
        )
    if names is None and column == "label" and train.label_names.keys() >= set(classes):
        names = [train.label_names[label] for label in classes]
    return classes, names


def _order(target: Tensor, balance: bool, generator: torch.Generator) -> Tensor:
    """Rows of one pass over the images: each once, or all classes equally often."""
    if not balance:
        return torch.randperm(len(target), generator=generator, device=target.device)
    share = target.bincount()[target].reciprocal()
    return torch.multinomial(share, len(target), replacement=True, generator=generator)


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
