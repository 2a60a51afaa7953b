"""Pictures: grids and samples have the pixels they were given, figures the numbers."""

import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from msgm.errors import UserError
from msgm.report.pictures import grid, loss_figure, save_samples


def test_grid_puts_pixels_where_expected() -> None:
    pixels = torch.randint(256, (5, 3, 4, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    image = grid(pixels, columns=3, scale=2, gap=1)
    assert image.mode == "RGB"
    assert image.size == (3 * 12 + 2, 2 * 8 + 1)
    for index in range(5):
        left, top = index % 3 * 13, index // 3 * 9
        for y in range(8):
            for x in range(12):
                expected = tuple(pixels[index, :, y // 2, x // 2].tolist())
                assert image.getpixel((left + x, top + y)) == expected
    gap = image.getpixel((12, 0))
    assert gap == image.getpixel((0, 8)) == image.getpixel((37, 16)) == (96, 96, 96)
    grey = grid(pixels[:2, :1], columns=10, scale=1)
    assert grey.mode == "L"
    assert grey.size == (2 * 6 + 2, 4)


@pytest.mark.parametrize(
    "bad", [torch.zeros(1, 1, 2, 2), torch.zeros(0, 1, 2, 2).byte(), torch.zeros(1, 2, 2, 2).byte()]
)
def test_grid_refuses_what_is_no_image(bad: torch.Tensor) -> None:
    with pytest.raises(UserError, match="grid takes"):
        grid(bad)


def test_samples_are_numbered_and_lossless(tmp_path: Path) -> None:
    pixels = torch.arange(2 * 3 * 2 * 2, dtype=torch.uint8).reshape(2, 3, 2, 2)
    save_samples(tmp_path / "a" / "b", pixels, start=9)
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == ["00009.png", "00010.png"]
    with Image.open(tmp_path / "a" / "b" / "00010.png") as image:
        assert image.getpixel((1, 0)) == tuple(pixels[1, :, 0, 1].tolist())


def test_a_crash_leaves_no_half_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a resumed run counts as done is whole."""

    def fail(*names: object) -> None:
        raise OSError("killed")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="killed"):
        save_samples(tmp_path, torch.zeros(1, 1, 4, 4, dtype=torch.uint8))
    assert not list(tmp_path.iterdir())


def test_loss_figure_draws_the_numbers() -> None:
    long = [(step, 1.0 + step % 2, None) for step in range(100)]
    figure = loss_figure({"a": long, "b": [(0, 3.0, -1.0), (5, 2.0, -4.0)]})
    retain, forget = figure.axes
    faint, smooth, short = retain.lines
    assert list(faint.get_ydata()) == [point[1] for point in long]
    # The mean of the last five of 1, 2, 1, 2, ... ends at its last step.
    assert list(smooth.get_ydata()) == pytest.approx([1.4 if step % 2 == 0 else 1.6 for step in range(4, 100)])
    assert smooth.get_xdata()[0] == 4 and smooth.get_xdata()[-1] == 99
    assert list(short.get_xydata().ravel()) == [0.0, 3.0, 5.0, 2.0]
    assert [list(line.get_ydata()) for line in forget.lines] == [[-1.0, -4.0]]
    assert len(loss_figure({"a": long}).axes) == 1
