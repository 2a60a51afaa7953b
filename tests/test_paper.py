"""The paper's tables: a grid at a hundredth of the steps on a tiny network, broken off and gone on with."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from msgm.errors import UserError
from msgm.experiments.paper import main, speed
from msgm.experiments.paper.budgets import BUDGETS, AuditSettings, Budget, Draw, Kind
from msgm.experiments.paper.main import reproduce
from msgm.experiments.paper.pieces import Deadline, pieces
from msgm.experiments.paper.tables import METHODS, TABLES, Request
from msgm.metrics.judge import JudgeSettings
from msgm.training.settings import TrainSettings, UnlearnSettings

TRAIN = TrainSettings(steps=6, batch=8, warmup=1, save_every=2, flip=True)
TUNE = UnlearnSettings(steps=4, batch=4, warmup=1, flip=True)
BUDGET = Budget(
    image_size=16,
    network="small-16",
    kinds={
        "vp": Kind(prediction="edm", train=TRAIN, tune=TUNE, seconds=60, tune_seconds=60),
        "ddpm": Kind(prediction="noise", train=TRAIN, tune=TUNE),
    },
    methods=("unseen", "obtuse", "deflect", "steer"),
    retrain=("unseen",),
    judge=JudgeSettings(epochs=2, batch=16, width=2),
    audit=AuditSettings(
        draws=(Draw(sampler="heun", steps=2, n=6, batch=3), Draw(sampler="dpm++-sde", steps=2, n=4)),
        nll_images=2,
        nll_steps=1,
        nll_check=2,
    ),
)
REQUEST = Request(data="blocks", rule="label == 1", names=("left", "right", "top"), groups={"right": (1,)})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("blocks")
    generator = torch.Generator().manual_seed(0)
    for split in ("train", "test"):
        for label in range(3):
            (root / split / str(label)).mkdir(parents=True)
            for index in range(16):
                image = torch.randint(0, 60, (16, 16, 3), generator=generator, dtype=torch.uint8)
                block = [image[:, :8], image[:, 8:], image[:8]][label]
                block += 150
                Image.fromarray(image.numpy()).save(root / split / str(label) / f"{index}.png")
    return str(root)


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {name: replace(table, request=REQUEST) for name, table in TABLES.items()}
    monkeypatch.setattr(main, "TABLES", small)
    monkeypatch.setattr(speed, "WARM", 1)
    monkeypatch.setattr(speed, "TIMED", 1)


def go(out: Path, data: str, minutes: float | None = None, budget: Budget = BUDGET) -> bool:
    return reproduce(list(TABLES), out=out, data=data, budget=budget, device="cpu", minutes=minutes, say=lambda s: None)


@pytest.mark.usefixtures("tables")
def test_a_grid_broken_off_at_any_piece_ends_as_one_that_was_not(tmp_path: Path, data: str, monkeypatch) -> None:
    assert go(tmp_path / "whole", data)
    calls, end = 0, 3

    def passed(self: Deadline) -> bool:
        # Asked before each piece and on each step; time is up at every seventh question, and stays so.
        nonlocal calls
        calls += 1
        if calls % 7 == 0:
            self.end = 0.0
        return self.end == 0.0

    monkeypatch.setattr(Deadline, "passed", property(passed))
    # The sizes follow from the speed, which no two runs share.
    (tmp_path / "parts/speed").mkdir(parents=True)
    (tmp_path / "parts/speed/result.json").write_text((tmp_path / "whole/speed/result.json").read_text())
    rounds = 0
    while not go(tmp_path / "parts", data):
        rounds += 1
        assert rounds < 60
    assert rounds > end
    for name in TABLES:
        whole, parts = (json.loads((tmp_path / run / f"{name}.json").read_text()) for run in ("whole", "parts"))
        assert len(whole["rows"]) == len(parts["rows"]) == {"table2-cifar10": 2, "table5": 5, "table6": 10}[name]
        for a, b in zip(whole["rows"], parts["rows"], strict=True):
            for draw in a["draws"]:
                keys = ("counts", "frechet")
                assert [a["draws"][draw][k] for k in keys] == [b["draws"][draw][k] for k in keys]
            assert [v["bits_per_dim"] for v in a["nll"].values()] == [v["bits_per_dim"] for v in b["nll"].values()]


@pytest.mark.usefixtures("tables")
def test_another_budget_is_refused_in_the_same_folder(tmp_path: Path, data: str) -> None:
    assert not go(tmp_path, data, minutes=0)
    with pytest.raises(UserError, match="other settings"):
        go(tmp_path, data, budget=replace(BUDGET, seeds=2))


def test_every_table_is_complete() -> None:
    for table in TABLES.values():
        for part in table.parts:
            assert all(len(row) == len(METHODS) for row in (*part.rates.values(), *part.nll.values()))
        # The classes' shares add up to that of both, as printed, to their rounding.
        for rates in (part.rates for part in table.parts if part.rates):
            single = zip(rates["automobile"], rates["dog"], strict=True)
            for (a, b), both in zip(single, rates["automobile and dog"], strict=True):
                assert abs(a + b - both) < 0.11


def test_the_order_of_pieces_puts_what_all_else_needs_first() -> None:
    for budget in BUDGETS.values():
        order = [piece.key for piece in pieces(list(TABLES.values()), budget)]
        assert len(order) == len(set(order))
        for process in ("vp", "ddpm"):
            first = next(i for i, key in enumerate(order) if key.startswith(f"{process}/tuned"))
            assert order.index("judge") < order.index(f"{process}/standard/model") < first
        assert not budget.retrain or order[-1].startswith("vp/scratch")
