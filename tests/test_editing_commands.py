"""`msgm inpaint` and `msgm reconstruct` as people use them, with the model in the package."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from test_cli import refused

from msgm.cli.main import main
from msgm.data import Source
from msgm.data.decode import Decoder

INPAINT = ["inpaint", "demo", "--mask", "upper-half", "--sampler", "heun", "--sampler.steps", "3", "--threads", "1"]
RECONSTRUCT = ["reconstruct", "demo", "--steps", "3", "--threads", "1"]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where a command is told to write; a refused command must not make it."""
    return tmp_path / "made" / "out"


def images(folder: Path) -> torch.Tensor:
    return torch.stack([torch.from_numpy(Decoder()(path, path.name)) for path in sorted(folder.glob("*.png"))])


def test_inpaint_writes_what_was_what_is_and_what_it_is_worth(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([*INPAINT, "-n", "4", "--resample", "2", "--out", str(out)])
    assert "PSNR" in capsys.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == ["all", "comparison.png", "results.json", "run.json"]
    before, masked, after = (images(out / "all" / column) for column in ("before", "masked", "after"))
    assert torch.equal(before, Source("demo").open("test").rows(slice(4)))
    assert bool((masked[:, :, :14] == 128).all())
    assert torch.equal(masked[:, :, 14:], before[:, :, 14:])
    assert torch.equal(after[:, :, 14:], before[:, :, 14:])
    assert not torch.equal(after[:, :, :14], before[:, :, :14])
    results = json.loads((out / "results.json").read_text())
    assert results["settings"] == {
        "mask": "upper-half",
        "sampler": "heun",
        "steps": 3,
        "grid": "edm",
        "resample": 2,
        "jump": 1,
    }
    assert results["command"].startswith("msgm inpaint demo --mask upper-half")
    assert len(results["model"]["weights_sha256"]) == 64
    assert results["judge"] == "demo"
    found = results["sets"]["all"]
    error = (before[:, :, :14].double() - after[:, :, :14].double()).square().flatten(1).mean(1)
    assert found["psnr"] == pytest.approx(float((10 * (255**2 / error).log10()).mean()))
    assert found["accuracy"]["n"] == 4
    assert "unlearning_ratio" not in found
    first = after[1].int()
    main([*INPAINT, "-n", "2", "--resample", "2", "--forget", "label == 3", "--out", str(out), "--overwrite"])
    assert not list((out / "all").rglob("*.png"))  # nothing of the earlier run is left
    again = json.loads((out / "results.json").read_text())
    assert again["rule"] == "label == 3"
    assert set(again["sets"]) == {"retain", "forget"}
    for found in again["sets"].values():
        assert found["unlearning_ratio"]["value"] + found["junk"]["value"] + found["retained"]["value"] == 1
    test = Source("demo").open("test")
    threes = test.labels == 3
    assert torch.equal(images(out / "forget" / "before"), test.rows(threes)[:2])
    assert torch.equal(images(out / "retain" / "before"), test.rows(~threes)[:2])
    # The first two test images are no threes: image k depends on its seed and number, and on what runs beside it
    # only through the rounding of the network's sums.
    assert int((images(out / "retain" / "after")[1].int() - first).abs().max()) <= 1


def test_reconstruct_writes_before_and_after(out: Path) -> None:
    main([*RECONSTRUCT, "-n", "2", "--forget", "label in [3, 7]", "--perturb", "0.1", "--out", str(out)])
    for key in ("retain", "forget"):
        assert sorted(path.name for path in (out / key).iterdir()) == ["after", "before"]
        assert len(images(out / key / "after")) == 2
    results = json.loads((out / "results.json").read_text())
    assert results["settings"] == {"perturb": 0.1, "steps": 3}
    assert set(results["sets"]) == {"retain", "forget"}
    with Image.open(out / "comparison.png") as picture:
        assert picture.width == 2 * (2 * 56 + 2) + 14


def test_images_of_ones_own(tmp_path: Path, out: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    own = torch.randint(0, 256, (2, 28, 28), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    for index, image in enumerate(own):
        Image.fromarray(image.numpy()).save(folder / f"{index}.png")
    mask = tmp_path / "mask.png"
    drawn = Image.new("L", (28, 28), 0)
    drawn.paste(255, (3, 4, 9, 6))
    drawn.save(mask)
    main([*INPAINT, "--mask", str(mask), "--images", str(folder), "--out", str(out)])
    after = images(out / "all" / "after")[:, 0]
    changed = (after != own).any(0)
    assert changed[4:6, 3:9].any()
    changed[4:6, 3:9] = False
    assert not changed.any()
    results = json.loads((out / "results.json").read_text())
    assert results["judge"] is None
    assert set(results["sets"]["all"]) == {"images", "psnr", "psnr_stderr", "accuracy", "accuracy_before"}
    assert results["sets"]["all"]["accuracy"] is None


def test_a_folder_called_demo_is_not_the_packages(tmp_path: Path, out: Path) -> None:
    folder = tmp_path / "demo" / "test" / "3"
    folder.mkdir(parents=True)
    for index in range(2):
        Image.new("L", (28, 28), 90 * index).save(folder / f"{index}.png")
    shutil.copytree(tmp_path / "demo" / "test", tmp_path / "demo" / "train")
    main([*INPAINT, "-n", "2", "--data", str(tmp_path / "demo"), "--out", str(out)])
    assert json.loads((out / "results.json").read_text())["judge"] is None


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--mask", "left"], "no mask 'left'"),
        (["--mask", "box:0,0,40,4"], "box:0,0,40,4"),
        (["-n", "0"], "n must be 1 or more"),
        (["--resample", "0"], "resample"),
        (["--jump", "0"], "jump"),
        (["--sampler.steps", "1"], "steps"),
        (["--sampler", "magic"], "magic"),
        (["--images", "nowhere"], "nowhere"),
        (["--images", "x", "--data", "demo"], "--images and --data"),
        (["--forget", "label == 11"], "leaves no forget images"),
        (["--forget", "colour == 1"], "colour"),
        (["--judge", "nobody"], "nobody"),
    ],
)
def test_inpaint_refuses(options: list[str], named: str, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert named in refused(capsys, *INPAINT, "--out", out, *options)
    assert not out.parent.exists()


@pytest.mark.parametrize(
    ("options", "named"), [(["--perturb", "2"], "perturb"), (["--steps", "1"], "steps"), (["-n", "0"], "n must be")]
)
def test_reconstruct_refuses(options: list[str], named: str, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert named in refused(capsys, *RECONSTRUCT, "--out", out, *options)
    assert not out.parent.exists()


@pytest.mark.parametrize("command", [INPAINT, RECONSTRUCT], ids=["inpaint", "reconstruct"])
def test_what_is_there_already_stays(command: list[str], out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out.mkdir(parents=True)
    (out / "mine.txt").write_text("mine")
    assert "already exists" in refused(capsys, *command, "--out", out)
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
