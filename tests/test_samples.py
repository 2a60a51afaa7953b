"""Folders of samples: a run that was stopped anywhere ends with the pictures of an undisturbed one."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracle import gaussian_model
from PIL import Image

from msgm.errors import UserError
from msgm.folders import IDENTITY
from msgm.model.space import Space
from msgm.process.sde import VPSDE
from msgm.report.samples import draw
from msgm.sampling import DPMSolverSDE, Heun, Sampler

MODEL = gaussian_model(VPSDE(), (1, 4, 4), dtype=torch.float32)
NAME = {"model": "gaussian"}


def stopping(after: int) -> Sampler:
    """A sampler that is interrupted in a step."""
    left = iter(range(after))

    class Stopping(DPMSolverSDE):
        def step(self, *given: Any) -> torch.Tensor:
            if next(left, None) is None:
                raise KeyboardInterrupt
            return super().step(*given)

    return Stopping(MODEL, steps=5)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def whole(tmp_path: Path) -> dict[str, bytes]:
    draw(DPMSolverSDE(MODEL, steps=5), 10, tmp_path / "whole", identity=NAME, seed=2, batch=3, progress=False)
    return contents(tmp_path / "whole")


def test_what_is_written(whole: dict[str, bytes], tmp_path: Path) -> None:
    assert sorted(whole) == [*(f"{k:05d}.png" for k in range(10)), "grid.png", IDENTITY]
    assert json.loads(whole[IDENTITY])["identity"] == {"model": "gaussian", "seed": 2, "batch": 3}
    expected = Space().to_pixels(DPMSolverSDE(MODEL, steps=5).sample(10, seed=2, batch=3))
    for index in (0, 9):
        with Image.open(tmp_path / "whole" / f"{index:05d}.png") as image:
            assert torch.equal(torch.from_numpy(np.array(image)), expected[index, 0])


@pytest.mark.parametrize("after", [0, 2, 4, 9, 14])
def test_a_stopped_run_goes_on_to_the_same_pictures(after: int, whole: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt, match="what was drawn is in"):
        draw(stopping(after), 10, out, identity=NAME, seed=2, batch=3, progress=False)
    assert len(list(out.glob("0*.png"))) == after // 4 * 3
    draw(DPMSolverSDE(MODEL, steps=5), 10, out, identity=NAME, seed=2, resume=True, progress=False)
    assert contents(out) == whole


def test_a_picture_that_was_cut_off_is_drawn_again(whole: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "whole"
    for index in range(6, 10):
        (out / f"{index:05d}.png").unlink()
    (out / "00005.png").write_bytes(whole["00005.png"][:30])
    draw(DPMSolverSDE(MODEL, steps=5), 10, out, identity=NAME, seed=2, resume=True, progress=False)
    assert contents(out) == whole


def test_only_what_is_missing_is_drawn(whole: dict[str, bytes], tmp_path: Path) -> None:
    # Four batches of one sampler with four steps each; a fifth batch would be refused by `stopping`.
    for index in range(7, 10):
        (tmp_path / "whole" / f"{index:05d}.png").unlink()
    draw(stopping(2 * 4), 10, tmp_path / "whole", identity=NAME, seed=2, resume=True, progress=False)
    assert contents(tmp_path / "whole") == whole


def test_a_finished_run_goes_on_to_more(whole: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "out"
    for n in (4, 10):
        draw(DPMSolverSDE(MODEL, steps=5), n, out, identity=NAME, seed=2, batch=3, resume=True, progress=False)
    assert contents(out) == whole


def test_overwriting_leaves_nothing_of_the_run_before(whole: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "whole"
    draw(Heun(MODEL, steps=5), 2, out, identity={"model": "other"}, batch=2, overwrite=True, progress=False)
    assert sorted(contents(out)) == ["00000.png", "00001.png", "grid.png", IDENTITY]
    assert json.loads((out / IDENTITY).read_text())["identity"] == {"model": "other", "seed": 0, "batch": 2}


@pytest.mark.parametrize("content", [b"", b"\0" * 200, None], ids=["empty", "zeros", "flipped"])
def test_a_picture_that_a_power_cut_broke_is_drawn_again(
    content: bytes | None, whole: dict[str, bytes], tmp_path: Path
) -> None:
    """Wherever it lies, in a run that seems to be finished too."""
    out = tmp_path / "whole"
    broken = bytearray(whole["00004.png"])
    broken[-20] ^= 1
    (out / "00004.png").write_bytes(bytes(broken) if content is None else content)
    draw(DPMSolverSDE(MODEL, steps=5), 10, out, identity=NAME, seed=2, resume=True, progress=False)
    assert contents(out) == whole


def test_images_without_numbers_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Diverging(DPMSolverSDE):
        def step(self, x: torch.Tensor, *given: Any) -> torch.Tensor:
            x = super().step(x, *given).clone()
            x[0] = torch.nan
            return x

    draw(Diverging(MODEL, steps=5), 5, tmp_path / "out", identity=NAME, batch=2, progress=False)
    assert "note: 3 of the 5 images hold no numbers (NaN or infinity)" in capsys.readouterr().err
    black = [not np.asarray(Image.open(tmp_path / f"out/0000{k}.png")).any() for k in range(5)]
    assert black == [True, False, True, False, True]


def test_pictures_of_others_stay(tmp_path: Path) -> None:
    (tmp_path / "00007.png").write_bytes(b"mine")
    for ways in ({"resume": True}, {"overwrite": True}):
        with pytest.raises(UserError, match=r"holds 00007\.png, and no record of a run"):
            draw(stopping(0), 2, tmp_path, identity=NAME, progress=False, **ways)
    assert contents(tmp_path) == {"00007.png": b"mine"}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 3}, "seed was 2, is 3"),
        ({"identity": {"model": "other"}}, "model was gaussian, is other"),
        ({"identity": {"model": "gaussian", "sampler": "x"}}, "sampler was not there, is x"),
        ({"batch": 4}, "batch was 3, is 4"),
        ({"n": 9}, "already holds 10"),
        ({"n": 0}, "n from 1 to 100000"),
        ({"batch": 0}, "a batch of 1 or more"),
        ({"resume": False}, "already exists"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_another_run_is_refused(change: dict[str, Any], named: str, whole: dict[str, bytes], tmp_path: Path) -> None:
    given: dict[str, Any] = {"n": 12, "identity": NAME, "seed": 2, "resume": True, "progress": False, **change}
    with pytest.raises(UserError, match=named):
        draw(stopping(0), given.pop("n"), tmp_path / "whole", **given)
    assert contents(tmp_path / "whole") == whole


def test_a_folder_of_something_else_is_not_resumed(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="holds no samples of msgm to resume"):
        draw(stopping(0), 2, tmp_path, identity=NAME, resume=True, progress=False)
    assert list(contents(tmp_path)) == ["mine.txt"]
