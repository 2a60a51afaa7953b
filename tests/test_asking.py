"""What is to be forgotten, by every way of the command line; and what is measured of images named one by one."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny import tiny_data, tiny_model

from msgm.cli.main import main
from msgm.data import ForgetRequest, Images, Source, request_of
from msgm.experiments.preview.main import closest
from msgm.formats import load, save
from msgm.formats.native import RECORD
from msgm.metrics.neighbours import nearest

SHORT = ("--steps", "2", "--batch", "4", "--threads", "1", "--method", "unseen")


def test_the_nearest_image_and_how_far_it_is() -> None:
    generator = torch.Generator().manual_seed(0)
    images = Images.of(torch.randint(0, 256, (50, 1, 3, 3), generator=generator, dtype=torch.uint8), name="x")
    queries = torch.randint(0, 256, (20, 1, 3, 3), generator=generator, dtype=torch.uint8)
    queries[3] = images.rows()[7]
    distance, row = nearest(queries, images)
    all_pairs = (queries[:, None].double() - images.rows()[None].double()).square().flatten(2).mean(2).sqrt()
    assert torch.equal(row, all_pairs.argmin(1))
    torch.testing.assert_close(distance.double(), all_pairs.min(1).values, rtol=1e-6, atol=0)
    assert distance[3] == 0 and row[3] == 7


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 8x8 images, copies of two of them, a list of their names, and a model."""
    root = tmp_path_factory.mktemp("shelf")
    images = tiny_data()
    for i, row in enumerate(images.rows()):
        place = root / "data" / ("left", "right")[int(images.labels[i])] / f"{i:02d}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(row[0].numpy()).save(place)
    (root / "copies").mkdir()
    shutil.copy(root / "data/left/04.png", root / "copies" / "somebody.png")
    shutil.copy(root / "data/right/07.png", root / "copies" / "else.png")
    (root / "list.txt").write_text("left/04.png\n\nright/07.png\n")
    save(tiny_model(), root / "m")
    return root


WAYS = {
    "list": lambda root: ["--forget-list", str(root / "list.txt")],
    "folder": lambda root: ["--forget-dir", str(root / "copies")],
    "rows": lambda root: ["--forget-index", "2,23"],
}


def unlearned(shelf: Path, out: Path, *words: str, model: str = "m") -> Path:
    main(["unlearn", str(shelf / model), "--data", str(shelf / "data"), *words, *SHORT, "--out", str(out)])
    return out


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What is said of words that are refused."""
    with pytest.raises(SystemExit) as end:
        main(list(words))
    assert end.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("way", WAYS)
def test_images_are_named_one_by_one(way: str, shelf: Path, tmp_path: Path) -> None:
    record = load(unlearned(shelf, tmp_path / "m", *WAYS[way](shelf))).record
    request, images = record["request"], Source(str(shelf / "data")).open()
    assert (request["retain"], request["forget"]) == (38, 2)
    meant = images.select(request_of(request).mask(images))
    assert sorted(Path(str(images.files[i])).name for i in meant.index.tolist()) == ["04.png", "07.png"]
    assert record["forgotten_sha256"] == meant.digest


def test_one_way_is_said(shelf: Path, tmp_path: Path, capsys) -> None:
    words = ["unlearn", str(shelf / "m"), "--data", str(shelf / "data"), "--out", str(tmp_path / "o")]
    assert "say in one way what is to be forgotten: --forget RULE, --forget-list FILE," in said(capsys, *words)
    assert "in one way" in said(capsys, *words, *WAYS["list"](shelf), "--forget", "label == 1")
    assert "row numbers with commas between, as 3,17; got '3;17'" in said(capsys, *words, "--forget-index", "3;17")
    assert "nothing.txt is not there; name a text" in said(
        capsys, *words, "--forget-list", str(tmp_path / "nothing.txt")
    )
    assert "nowhere is no folder" in said(capsys, *words, "--forget-dir", str(tmp_path / "nowhere"))
    (tmp_path / "empty.txt").write_text("\n")
    assert "empty.txt names no image" in said(capsys, *words, "--forget-list", str(tmp_path / "empty.txt"))
    assert not (tmp_path / "o").exists()


def test_what_is_named_twice_counts_once(shelf: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "list.txt").write_text("left/04.png\nright/07.png\nleft/04.png\n")
    for words, shown in (
        (["--forget-index", "3,7,3"], "forget 2 rows: 3, 7: 2 of 40 images"),
        (["--forget-list", str(tmp_path / "list.txt")], "forget 2 files: left/04.png, right/07.png: 2 of 40"),
    ):
        main(["request", "--data", str(shelf / "data"), *words])
        assert shown in capsys.readouterr().out


def test_all_copies_below_a_folder_are_meant(shelf: Path, tmp_path: Path, capsys) -> None:
    for i, place in enumerate(("train/0.png", "test/1.png", "2.png", "more/deep/3.png")):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(shelf / f"data/left/{2 * i:02d}.png", tmp_path / place)
    (tmp_path / "labels.csv").write_text("file,label\n0.png,1\n")
    shutil.copy(shelf / "data/left/08.png", tmp_path / "train/nameless")
    main(["request", "--data", str(shelf / "data"), "--forget-dir", str(tmp_path)])
    shown = capsys.readouterr()
    assert "4 of 40 images" in shown.out
    assert "no images by their names: labels.csv, train/nameless" in shown.err


def test_copies_are_read_as_the_data_are(tmp_path: Path, capsys) -> None:
    for i, mode in enumerate(("L", "RGB", "RGB")):
        (tmp_path / "data").mkdir(exist_ok=True)
        Image.new("RGB", (6, 4), (40 * i, 9, 9)).convert(mode).save(tmp_path / f"data/{i}.png")
    (tmp_path / "copy").mkdir()
    shutil.copy(tmp_path / "data/0.png", tmp_path / "copy")
    for reading in (["--data.size", "4"], ["--data.mode", "rgb"], ["--data.mode", "grey", "--data.size", "2"]):
        main(["request", "--data", str(tmp_path / "data"), *reading, "--forget-dir", str(tmp_path / "copy")])
        assert "1 of 3 images" in capsys.readouterr().out


def test_one_by_one_is_measured_by_the_nearest(shelf: Path, tmp_path: Path, capsys) -> None:
    child = unlearned(shelf, tmp_path / "m", "--forget-index", "2,23")
    few = ("-n", "12", "--nll-images", "2", "--nll-steps", "2", "--nll-check", "1", "--sampler", "dpm++")
    where = ("--out", str(tmp_path / "o"), "--sampler.steps", "3", "--threads", "1")
    main(["evaluate", str(child), "--against", str(shelf / "m"), *few, *where])
    rows = json.loads((tmp_path / "o/results.json").read_text())["rows"]
    images = Source(str(shelf / "data")).open()
    forget = request_of({"index": [2, 23]}).mask(images)
    for row, name in zip(rows, ("m", "m"), strict=True):
        folder = next((tmp_path / "o/samples").glob(f"{row['model']}*"))
        samples = Source(str(folder)).open().rows()
        near = row["measured"]["near"]
        to_forget, to_retain = (nearest(samples, images.select(mask))[0] for mask in (forget, ~forget))
        assert near["hits"] == int((to_forget < to_retain).sum()) and near["n"] == 12 and near["low"] is not None
        back = (images.select(forget).rows()[:, None].double() - samples[None].double()).square().flatten(2).mean(2)
        assert row["measured"]["closest"]["value"] == pytest.approx(float(back.sqrt().min(1).values.mean()), rel=1e-5)
        assert name and row["unlearning_ratio"]["value"] is None
    assert "is nearest to an image to be forgotten in" in (tmp_path / "o/report.html").read_text()
    words = ["evaluate", str(child), "--out", str(tmp_path / "p"), "--judge", "demo"]
    assert "names single images, and a judge tells classes; leave out --judge" in said(capsys, *words)


def test_a_sweep_of_single_images(shelf: Path, tmp_path: Path) -> None:
    few = ("-n", "4", "--nll-images", "0", "--seeds", "1", "--workers", "1", "--threads", "1", "--method", "unseen")
    words = ["sweep", str(shelf / "m"), "--data", str(shelf / "data"), "--forget-index", "2,23"]
    main([*words, "--steps", "2", "--batch", "4", *few, "--out", str(tmp_path / "o")])
    results = json.loads((tmp_path / "o/results.json").read_text())
    assert [row["model"] for row in results["rows"]][1:] == ["unseen"] and "judge" not in results
    assert all(row["measured"]["near"]["n"] == 4 for row in results["rows"])


def test_requests_follow_each_other_on_the_command_line(shelf: Path, tmp_path: Path, capsys) -> None:
    first = unlearned(shelf, tmp_path / "one", "--forget-list", str(shelf / "list.txt"))
    capsys.readouterr()
    second = unlearned(shelf, tmp_path / "two", "--forget-index", "0", model=str(first))
    assert "forgotten along, as asked before: 2 files: left/04.png, right/07.png" in capsys.readouterr().err
    assert load(second).record["request"]["forget"] == 3
    third = unlearned(shelf, tmp_path / "three", "--forget-index", "1", "--earlier", "ignore", model=str(first))
    assert "asked before, and may come back: 2 files" in capsys.readouterr().err
    assert load(third).record["request"]["forget"] == 1
    main(["show", str(second)])
    shown = capsys.readouterr().out
    assert "forget row 0" in shown and "forget 2 files: left/04.png, right/07.png" in shown
    assert shown.splitlines()[-1].startswith("3 records, each linked to the one before; the weights are the last one's")
    record = json.loads((second / RECORD).read_text())
    record["earlier"][1]["request"]["files"] = ["left/06.png"]
    (second / RECORD).write_text(json.dumps(record))
    assert "record 2 of the chain was changed" in said(capsys, "show", str(second))
    record = json.loads((first / RECORD).read_text())
    del record["seal"]
    (first / RECORD).write_text(json.dumps(record))
    assert "has no seal" in said(capsys, "show", str(first))


def test_a_request_is_looked_at_first(shelf: Path, tmp_path: Path, capsys) -> None:
    data = ("--data", str(shelf / "data"))
    main(["request", *data, "--forget", "label == 'left'", "--preview", str(tmp_path / "o")])
    shown = capsys.readouterr().out
    assert "forget label == 'left': 20 of 40 images; 20 retained" in shown
    assert "left                      20 forgotten       0 retained" in shown
    assert (tmp_path / "o/nearest.png").is_file()
    told = json.loads((tmp_path / "o/request.json").read_text())
    assert told["labels"] == {"left": {"retain": 0, "forget": 20}, "right": {"retain": 20, "forget": 0}}
    split = ForgetRequest("label == 'left'").split(Source(str(shelf / "data")).open())
    kept, partner = closest(split)
    pairs = (split.retain.rows()[:, None].double() - split.forget.rows()[None].double()).square().flatten(2).mean(2)
    assert kept.tolist() == pairs.min(1).values.argsort(stable=True).tolist()
    assert partner.tolist() == pairs.argmin(1)[kept].tolist()
    with Image.open(tmp_path / "o/forget.png") as sheet:
        assert sheet.size == (10 * 18 - 2, 2 * 18 - 2)  # twenty of 8 pixels, enlarged twice
    again = ("--forget-list", str(tmp_path / "o/request.json"))
    assert load(unlearned(shelf, tmp_path / "again", *again)).record["request"]["rule"] == "label == 'left'"
    shutil.copytree(shelf / "data", tmp_path / "other")
    shutil.copy(tmp_path / "other/left/04.png", tmp_path / "other/right/07.png")
    others = ("request", "--data", str(tmp_path / "other"), *again)
    refused = said(capsys, *others)
    assert "request.json is of other images than other as it is read here" in refused and "look" in refused
    assert told["data"]["sha256"] == Source(str(shelf / "data")).open().digest
    del told["data"]  # as older files
    (tmp_path / "o/request.json").write_text(json.dumps(told))
    main(list(others))
    first = unlearned(shelf, tmp_path / "one", "--forget-index", "0")
    capsys.readouterr()
    main(["request", "--model", str(first), "--forget-index", "1"])
    assert "forget row 0; row 1: 2 of 40 images; 38 retained" in capsys.readouterr().out
    assert "say which images" in said(capsys, "request", "--forget-index", "1")
