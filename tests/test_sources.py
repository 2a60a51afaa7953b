"""Folders of images as people have them: each file is read rightly, or named."""

import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from test_data import picture, pixels, png, refusal, save

from msgm import ForgetRequest, Source
from msgm.data.lists import FileRequest
from msgm.data.names import numbered
from msgm.errors import UserError


def labels(data: Any) -> list[int]:
    found: list[int] = data.labels.tolist()
    return found


# Names that are numbers


@pytest.mark.parametrize("names", [("0", "1", "2", "10"), ("1", "2", "3"), ("-1", "007")])
def test_a_number_in_a_rule_is_the_name_of_the_folder(tmp_path: Path, names: tuple[str, ...]) -> None:
    for i, name in enumerate(names):
        save(tmp_path / "train" / name / "0.png", pixels(i))
        save(tmp_path / "test" / name / "0.png", pixels(i))
    for split in ("train", "test"):
        data = Source(str(tmp_path)).open(split)
        assert sorted(labels(data)) == sorted(map(int, names))
        assert data.label_names == {int(name): name for name in names}
        for i, name in enumerate(names):
            for rule in (f"label == {int(name)}", f"label == '{name}'"):
                assert torch.equal(ForgetRequest(rule).split(data).forget.rows()[0], pixels(i))


def test_a_number_among_names_is_a_name_and_no_place(tmp_path: Path) -> None:
    for i, name in enumerate(("0", "1", "10", "2", "cat")):
        save(tmp_path / name / "0.png", pixels(i))
    data = Source(str(tmp_path)).open()
    assert list(data.label_names.values()) == ["0", "1", "10", "2", "cat"]
    for rule, place in (("label == 10", 2), ("label == 2", 3), ("label == '2'", 3), ("label == 'cat'", 4)):
        assert torch.equal(ForgetRequest(rule).split(data).forget.rows()[0], pixels(place))
    known = r"label takes '0', '1', '10', '2', 'cat'"
    for rule in ("label == 3", "label in [1, 4]"):
        with pytest.raises(UserError, match=rf"label is never [34].*\({known}\)"):
            ForgetRequest(rule).mask(data)
    for rule in ("label > 5", "0 < label <= 2"):
        with pytest.raises(UserError, match=rf"not all classes are numbers, so they have no order.*\({known}\)"):
            ForgetRequest(rule).mask(data)
    for name in ("0", "1", "cat"):
        shutil.rmtree(tmp_path / name)
    save(tmp_path / "02" / "0.png", pixels(3))
    assert Source(str(tmp_path)).open().label_names == {0: "02", 1: "10", 2: "2"}  # 02 and 2 are one number


def test_names_are_one_however_their_accents_are_written(tmp_path: Path) -> None:
    apart, joined = "cafe\u0301", "caf\u00e9"
    for i, (train, test) in enumerate(((apart, joined), ("bar", "bar"))):
        save(tmp_path / "train" / train / f"{train}.png", pixels(i))
        save(tmp_path / "test" / test / "0.png", pixels(i))
    train = Source(str(tmp_path)).open()
    assert train.label_names == Source(str(tmp_path)).open("test").label_names == {0: "bar", 1: joined}
    for name in (apart, joined):
        for request in (ForgetRequest(f"label == '{name}'"), FileRequest((name,)), FileRequest((f"{name}.png",))):
            assert request.mask(train).tolist() == [False, True]
    for written in (apart, joined):
        (tmp_path / "train" / "labels.csv").write_text(f"file,label\n{joined}.png,{written}\n")
        assert Source(str(tmp_path)).open().label_names == {0: joined}


# Tables beside images


def test_columns_are_one_however_their_accents_are_written(tmp_path: Path) -> None:
    apart, joined = "cafe\u0301", "caf\u00e9"
    for i in range(2):
        save(tmp_path / f"{i}.png", pixels(i))
    for written in (apart, joined):
        (tmp_path / "labels.csv").write_text(f"file,{written}\n0.png,0\n1.png,1\n")
        data = Source(str(tmp_path)).open()
        assert list(data.columns) == [joined]
        for name in (apart, joined, f"'{apart}'"):
            assert ForgetRequest(f"{name} == 1").mask(data).tolist() == [False, True]
        for name in (apart, joined):
            assert labels(Source(str(tmp_path), labels=name).open()) == [0, 1]
    (tmp_path / "labels.csv").write_text(f"file,{apart},{joined}\n0.png,0,0\n1.png,1,0\n")
    assert f"1.png: columns of one name, {joined}, with different values" in refusal(tmp_path)


def test_tables_of_labels(tmp_path: Path) -> None:
    for name in ("0.png", "1.png"):
        save(tmp_path / "csv" / name, pixels(int(name[0])))
        save(tmp_path / "lines" / name, pixels(int(name[0])))
        save(tmp_path / "celeba" / "img_align_celeba" / name, pixels(int(name[0])))
    (tmp_path / "csv" / "labels.csv").write_text("file,label\n1.png,1\n0.png,0\n")
    rows = [{"file_name": "1.png", "label": 1, "age": 3}, {"file_name": "0.png", "label": 0}]
    (tmp_path / "lines" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "celeba" / "list_attr_celeba.txt").write_text("2\nBangs Male \n1.png  1 -1\n0.png -1 -1\n")
    for name in ("csv", "lines", "celeba"):
        data = Source(str(tmp_path / name)).open()
        assert torch.equal(data.rows(), torch.stack([pixels(1), pixels(0)]))
        assert labels(data) == [1, 0] if name != "celeba" else data.columns["Bangs"].tolist() == [1, 0]
    assert Source(str(tmp_path / "lines")).open().dropped == {"age": "1 of 2 values are missing"}
    attributes = Source(str(tmp_path / "celeba")).open()
    assert sorted(attributes.columns) == ["Bangs", "Male"]
    assert ForgetRequest("Bangs == 1").split(attributes).forget.rows().tolist() == [pixels(1).tolist()]
    (tmp_path / "celeba" / "list_eval_partition.txt").write_text("0.png 2\n1.png 0\n")
    assert torch.equal(Source(str(tmp_path / "celeba")).open("test").rows()[0], pixels(0))
    assert torch.equal(Source(str(tmp_path / "celeba")).open().rows()[0], pixels(1))


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_names_in_a_column_have_one_number_in_both_splits(tmp_path: Path, kind: str) -> None:
    for split, names in (("train", ("cat", "ant", "bee")), ("test", ("cat", "bee", "yak"))):
        for i, name in enumerate(names):
            save(tmp_path / split / f"{name}.png", pixels(i))
        if kind == "csv":
            rows = "\n".join(f"{name}.png,{name}" for name in names)
            (tmp_path / split / "metadata.csv").write_text(f"file_name,label\n{rows}\n")
        else:
            content = [{"bytes": png(pixels(i)), "path": None} for i in range(3)]
            pq.write_table(pa.table({"image": content, "label": names}), tmp_path / f"{split}.parquet")
    train, test = Source(str(tmp_path)).open(), Source(str(tmp_path)).open("test")
    assert (labels(train), train.label_names) == ([2, 0, 1], {0: "ant", 1: "bee", 2: "cat"})
    assert (labels(test), test.label_names) == ([2, 1, 3], {0: "ant", 1: "bee", 2: "cat", 3: "yak"})
    if kind == "csv":
        (tmp_path / "train" / "ant.png").write_bytes(b"")
        train, test = (Source(str(tmp_path), skip_bad=True).open(split) for split in ("train", "test"))
        assert (labels(train), labels(test)) == ([2, 1], [2, 1, 3])
        (tmp_path / "test" / "metadata.csv").write_text("file_name,label\ncat.png,2\n")
        assert "column label has text in one split and numbers in the other" in refusal(tmp_path, split="test")
        for path in (tmp_path / "train").iterdir():
            path.unlink()
        (tmp_path / "train").rmdir()
        assert labels(Source(str(tmp_path)).open("test")) == [2]  # there is no other split


def test_a_class_of_the_test_split_alone_takes_the_next_number() -> None:
    assert numbered(["10", "2"], ["7", "2"]) == {"10": 10, "2": 2, "7": 7}
    assert numbered(["1", "2"], ["cat"]) == {"1": 1, "2": 2, "cat": 3}
    assert numbered(["b", "c"], ["a", "7"]) == {"b": 0, "c": 1, "a": 2, "7": 3}


def test_the_table_of_a_folder_is_its_own(tmp_path: Path) -> None:
    """What lies above it is of other data, unless the folder is a split of it; then a line says so."""
    pets = tmp_path / "pets"
    for i, name in enumerate(("cat/0.png", "dog/1.png")):
        save(pets / name, pixels(i))
    (tmp_path / "metadata.csv").write_text("file_name,label\n0.png,7\n1.png,8\n")
    assert labels(Source(str(pets)).open()) == [0, 1]
    (pets / "labels.csv").write_text("file,label\n0.png,1\n1.png,0\n")
    data = Source(str(pets)).open()
    assert (labels(data), data.notes) == ([1, 0], [])
    pets.rename(tmp_path / "train")
    assert labels(Source(str(tmp_path / "train")).open()) == [1, 0]
    (tmp_path / "train" / "labels.csv").unlink()
    for root in (tmp_path, tmp_path / "train"):
        data = Source(str(root)).open()
        assert labels(data) == [7, 8]
        assert data.notes == [f"taken from outside {tmp_path / 'train'}: {tmp_path / 'metadata.csv'}"]


def test_one_table_for_both_splits(tmp_path: Path) -> None:
    for i, name in enumerate(("train/1.png", "train/deep/2.png", "test/3.png")):
        save(tmp_path / name, pixels(i))
    for rows in ("train/1.png,0\ntrain/deep/2.png,1\ntest/3.png,2\n", "3.png,2\n1.png,0\ndeep/2.png,1\n"):
        (tmp_path / "labels.csv").write_text(f"file,label\n{rows}")
        assert labels(Source(str(tmp_path)).open()) == [0, 1]
        assert labels(Source(str(tmp_path)).open("test")) == [2]
    (tmp_path / "labels.csv").write_text("file,label\ntest/9.png,0\n")
    assert f"{tmp_path / 'test' / '9.png'}: named in {tmp_path / 'labels.csv'}, but no such file" in refusal(tmp_path)


def test_a_name_in_a_table_means_one_image(tmp_path: Path) -> None:
    for i, name in enumerate(("x/1.png", "y/1.png")):
        save(tmp_path / "one" / name, pixels(i))
        save(tmp_path / "two" / name.replace("x", "train").replace("y", "test"), pixels(i))
    for folder, places in (("one", "x/1.png or {0}/y/1.png"), ("two", "train/1.png or {0}/test/1.png")):
        root, table = tmp_path / folder, tmp_path / folder / "labels.csv"
        table.write_text("file,label\n1.png,0\n")
        assert f"{table}: 1.png may be {root}/{places.format(root)}; write more of the path" in refusal(root)
    table = tmp_path / "one" / "labels.csv"
    table.write_text("file,label\nx/1.png,0\nx/1.png,1\n")
    assert f"{tmp_path / 'one' / 'x' / '1.png'}: named twice in {table}" in refusal(tmp_path / "one")
    table.write_text("file,label\ny/1.png,0\nx/1.png,1\n")
    assert labels(Source(str(tmp_path / "one")).open()) == [0, 1]


def test_the_split_of_celeba_names_each_image_once(tmp_path: Path) -> None:
    for i in range(3):
        save(tmp_path / f"{i}.png", pixels(i))
    part = tmp_path / "list_eval_partition.txt"
    for bad in ("1.png", "1.png train", "0"):
        part.write_text(f"0.png 0\n{bad}\n")
        assert f"{part}, line 2: a file name and 0, 1 or 2 expected, not {bad!r}" in refusal(tmp_path)
    part.write_text("0.png 0\n0.png 2\n")
    assert f"{tmp_path / '0.png'}: named twice in {part}" in refusal(tmp_path)
    part.write_text("0.png 0\n1.png 2\n9.png 0\n")
    data = Source(str(tmp_path)).open()
    assert torch.equal(data.rows(), pixels(0)[None])
    assert data.notes == [f"left out, not named in {part}: 2.png"]


def test_a_table_as_people_type_it(tmp_path: Path) -> None:
    for i in range(3):
        save(tmp_path / f"{i}.png", pixels(i))
    table = tmp_path / "labels.csv"
    table.write_text("file, label\n0.png, dog\n1.png,cat\n2.png, dog\n")
    data = Source(str(tmp_path)).open()
    assert (labels(data), data.label_names) == ([1, 0, 1], {0: "cat", 1: "dog"})
    table.write_text("file,label\n0,cat\n1,dog\n")
    assert refusal(tmp_path) == f"{tmp_path / '0'}: named in {table}, but no such file; write 0.png, with its suffix"
    table.write_text("file,label\n007,cat\n")
    assert refusal(tmp_path) == f"{tmp_path / '007'}: named in {table}, but no such file"
    table.write_text("file,label\n0.png,cat\n,dog\n")
    assert f"{table}: a row names no file in its column file" in refusal(tmp_path)
    table.rename(tmp_path / "away")
    (tmp_path / "list_attr_celeba.txt").write_text("1\nBangs Male Bangs\n0.png 1 -1 -1\n")
    assert "list_attr_celeba.txt, line 2: Bangs: the name of more than one column" in refusal(tmp_path)


def test_a_rule_on_a_column_that_is_left_out_says_why(tmp_path: Path) -> None:
    for name in "ab":
        save(tmp_path / f"{name}.png", pixels(0))
    (tmp_path / "metadata.csv").write_text("file_name,breed,age,none\na.png,pug,,None\nb.png,tabby,3,NA\n")
    data = Source(str(tmp_path)).open()
    assert data.dropped == {"breed": "text", "age": "1 of 2 values are missing", "none": "text"}
    with pytest.raises(UserError, match=r"column breed .* text; read it as labels \(labels: breed\)"):
        ForgetRequest("breed == 'pug'").split(data)
    with pytest.raises(UserError, match=r"column age .* 1 of 2 values are missing"):
        ForgetRequest("age > 2").split(data)
    assert "column age cannot be used as labels: 1 of 2 values are missing" in refusal(tmp_path, labels="age")
    pugs = ForgetRequest("label == 'pug'").split(Source(str(tmp_path), labels="breed").open())
    assert len(pugs.forget) == 1


def test_columns_of_a_table_have_kinds(tmp_path: Path) -> None:
    for name in "abc":
        save(tmp_path / f"{name}.png", pixels(0))
    heads = "file_name,whole,plus,yes,half,nan,arabic,under,huge,mixed"
    (tmp_path / "metadata.csv").write_text(
        f"{heads}\na.png,007,+1,True,1.5,nan,\u0661,1_0,{'9' * 25},True\n"
        f"b.png, 8,-1,false,2,inf,2,2,1,0\nc.png,9,0,TRUE,.5,1,3,3,2,1\n"
    )
    data = Source(str(tmp_path)).open()
    assert {name: column.tolist() for name, column in data.columns.items()} == {
        "whole": [7, 8, 9],
        "plus": [1, -1, 0],
        "yes": [1, 0, 1],
    }
    text = dict.fromkeys(["nan", "arabic", "under", "mixed"], "text")
    assert data.dropped == {"half": "no whole numbers", "huge": "numbers too large"} | text


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("metadata.csv", "file_name,a,a\n0.png,1,2\n", "names of their own"),
        ("metadata.csv", "file_name,a\n0.png,1,2\n", "3 cells for 2 columns"),
        ("metadata.csv", "file_name" + ",".join(map(str, range(100_001))) + "\n", "at most 100000"),
        ("metadata.csv", 'file_name,a\n0.png,"' + "x" * 200_000 + "\n", "not a table in CSV"),
        ("metadata.csv", b"\xff\xfe\xff", "not a table in CSV"),
        ("metadata.jsonl", "null\n", "line 1: not a JSON object"),
        ("metadata.jsonl", '{"file_name": "0.png"}\n[1]\n', "line 2: not a JSON object"),
        ("metadata.jsonl", "[" * 100_000, "line 1: not a JSON object"),
        ("metadata.jsonl", b"\xff", "not a table in JSONL"),
        ("metadata.parquet", b"PAR1", "not a complete Parquet file"),
    ],
)
def test_a_hostile_table_is_named(name: str, content: str | bytes, named: str, tmp_path: Path) -> None:
    save(tmp_path / "0.png", pixels(0))
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert named in refusal(tmp_path) and name in refusal(tmp_path)


@pytest.mark.parametrize("name", ["a/0.png", "x.parquet", "x.tar", "metadata.jsonl", "list_attr_celeba.txt"])
def test_a_pipe_is_not_waited_for(name: str, tmp_path: Path) -> None:
    save(tmp_path / "a" / "1.png", pixels(0))
    os.mkfifo(tmp_path / name)
    if name == "a/0.png":
        assert "0.png: a pipe, a socket or a device" in refusal(tmp_path)
        assert len(Source(str(tmp_path), skip_bad=True).open()) == 1
    else:
        assert len(Source(str(tmp_path)).open()) == 1


# Nothing is dropped in silence


def test_links_are_followed_and_broken_ones_named(tmp_path: Path) -> None:
    save(tmp_path / "elsewhere" / "deep" / "1.png", pixels(1))
    folder = tmp_path / "data"
    save(folder / "a" / "0.png", pixels(0))
    (folder / "b").symlink_to(tmp_path / "elsewhere")
    (folder / "a" / "2.png").symlink_to(tmp_path / "elsewhere" / "deep" / "1.png")
    data = Source(str(folder)).open()
    assert torch.equal(data.rows(), torch.stack([pixels(0), pixels(1), pixels(1)]))
    assert labels(data) == [0, 0, 1]
    (folder / "a" / "3.png").symlink_to(tmp_path / "nowhere.png")
    assert refusal(folder).startswith(f"{folder / 'a' / '3.png'}: not a complete image (")
    (folder / "a" / "3.png").unlink()
    (tmp_path / "elsewhere" / "round").symlink_to(folder)
    assert "a link to a folder that it lies in" in refusal(folder)


def test_a_class_that_is_called_like_a_split_is_asked_about(tmp_path: Path) -> None:
    for name in ("train", "plane", "car"):
        save(tmp_path / name / "0.png", pixels(0))
    assert f"{tmp_path}: is train, beside car, plane, a split or a class?" in refusal(tmp_path)
    for name in ("train", "plane", "car"):
        save(tmp_path / "all" / "train" / name / "0.png", pixels(0))
    assert Source(str(tmp_path / "all")).open().label_names == {0: "car", 1: "plane", 2: "train"}
    save(tmp_path / "test" / "0.png", pixels(0))
    assert Source(str(tmp_path)).open().notes == [f"left out, beside the splits in {tmp_path}: all, car, plane"]


@pytest.mark.parametrize("name", ["test", "val", "validation", "valid", "Testing", "TEST_SET", "test set"])
def test_names_of_the_test_split(tmp_path: Path, name: str) -> None:
    save(tmp_path / "train" / "a" / "0.png", pixels(0))
    save(tmp_path / "train" / "b" / "0.png", pixels(1))
    save(tmp_path / name / "b" / "0.png", pixels(2))
    data = Source(str(tmp_path)).open("test")
    assert torch.equal(data.rows(), pixels(2)[None]) and labels(data) == [1]


@pytest.mark.parametrize("name", ["train", "Train", "training_set", "TrainSet"])
def test_names_of_the_train_split(tmp_path: Path, name: str) -> None:
    save(tmp_path / name / "a" / "0.png", pixels(0))
    save(tmp_path / name / "b" / "0.png", pixels(1))
    save(tmp_path / "Test" / "b" / "0.png", pixels(2))
    assert labels(Source(str(tmp_path)).open()) == [0, 1]
    assert labels(Source(str(tmp_path)).open("test")) == [1]
    inside = f"{tmp_path}: is no class, it holds a train and a test split; name this folder as the data"
    (tmp_path.parent / f"{tmp_path.name}-outer").mkdir()
    outer = tmp_path.parent / f"{tmp_path.name}-outer" / "data"
    outer.symlink_to(tmp_path)
    assert inside.replace(str(tmp_path), str(outer)) in refusal(outer.parent)


def test_images_beside_the_splits_are_reported(tmp_path: Path) -> None:
    for name in ("train/0.png", "test/0.png", "loose.png"):
        save(tmp_path / name, pixels(0))
    (tmp_path / "README").write_text("hello")
    for split in ("train", "test"):
        assert Source(str(tmp_path)).open(split).notes == [f"left out, beside the splits in {tmp_path}: loose.png"]


def test_a_folder_without_images_is_no_class(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / split / "__MACOSX" / "cat").mkdir(parents=True)
        (tmp_path / split / "__MACOSX" / "cat" / "._0.png").write_bytes(b"junk")
        save(tmp_path / split / "cat" / "0.png", pixels(0))
        data = Source(str(tmp_path)).open(split)
        assert (labels(data), data.label_names) == ([0], {0: "cat"})


def test_files_that_are_no_images_are_reported(tmp_path: Path) -> None:
    save(tmp_path / "a" / "0.png", pixels(0))
    (tmp_path / "a" / "notes.txt").write_text("hello")
    (tmp_path / "README").write_text("hello")
    data = Source(str(tmp_path)).open()
    assert len(data) == 1
    assert data.notes == [f"left out of {tmp_path}, no images by their names: README, a/notes.txt"]
    (tmp_path / "a" / "0.png").unlink()
    assert f"{tmp_path}: no images in it (left out of {tmp_path}, no images by their names: README" in refusal(tmp_path)


# What a picture looks like


def test_transparent_pixels_lie_on_the_background(tmp_path: Path) -> None:
    hidden = np.zeros((2, 2, 4), np.uint8)
    hidden[..., 0] = 200
    hidden[0, :, 3] = 255
    hidden[1, 1, 3] = 51
    Image.fromarray(hidden).save(tmp_path / "a.png")
    shown = {
        "white": [[[200, 200], [255, 244]], [[0, 0], [255, 204]], [[0, 0], [255, 204]]],
        "black": [[[200, 200], [0, 40]], [[0, 0], [0, 0]], [[0, 0], [0, 0]]],
    }
    for background, expected in shown.items():
        assert Source(str(tmp_path), background=background).open().rows()[0].tolist() == expected  # type: ignore[arg-type]
    assert "a.png: has transparent pixels" in refusal(tmp_path, background="refuse")
    Image.fromarray(np.array([[[7, 0], [9, 255]]], np.uint8)).save(tmp_path / "a.png")
    assert Source(str(tmp_path)).open().rows().tolist() == [[[[255, 9]]]]
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.save(tmp_path / "a.png", transparency=0)
    assert Source(str(tmp_path)).open().rows()[0].tolist() == [[[255, 40]], [[255, 50]], [[255, 60]]]
    palette.save(tmp_path / "a.png")  # opaque: the colours themselves, whatever the background
    opaque = Source(str(tmp_path), background="refuse").open()
    assert opaque.rows()[0].tolist() == [[[10, 40]], [[20, 50]], [[30, 60]]]


def test_modes(tmp_path: Path) -> None:
    grey, colour = pixels(0, channels=1), pixels(1)
    save(tmp_path / "a" / "0.png", grey)
    save(tmp_path / "b" / "1.png", colour)
    assert "4×4 colour, but" in (message := refusal(tmp_path)) and "give mode (grey or rgb), to bring" in message
    both = Source(str(tmp_path), mode="rgb").open()
    assert torch.equal(both.rows(), torch.stack([grey.expand(3, 4, 4), colour]))
    luma = torch.from_numpy(np.array(picture(colour).convert("L")))[None]
    assert torch.equal(Source(str(tmp_path), mode="grey").open().rows(), torch.stack([grey, luma]))
    assert torch.equal(Source(str(tmp_path), size=4).open().rows(), both.rows())
    digits = Source("demo", mode="rgb").open("test")
    assert digits.shape == (3, 28, 28)
    assert torch.equal(digits.rows([5]), Source("demo").open("test").rows([5]).expand(1, 3, 28, 28))
    with pytest.raises(UserError, match=r"\(3, 4, 4\).*has \(1, 4, 4\); read them as rgb \(mode\), or use other data"):
        Source(str(tmp_path), mode="grey").open().check_shape((3, 4, 4))
    assert "mode must be grey or rgb, not 'RGB'" in refusal(tmp_path, mode="RGB")


def strange(folder: Path, n: int) -> dict[str, str]:
    """n pictures and ten that are not as the others; for those that cannot be read, the words that say so."""
    for i in range(n):
        save(folder / f"{i % 2}" / f"{i:05d}.png", pixels(i, 8, 8))
    whole = (folder / "0" / "00000.png").read_bytes()
    for i in range(3):
        (folder / "0" / f"cut{i}.png").write_bytes(whole[: 60 + 40 * i])
    (folder / "0" / "readme.txt").write_text("hello")
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(folder / "1" / "cmyk.tiff")
    Image.fromarray(np.full((8, 8), 40000, np.uint16)).save(folder / "1" / "deep.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(pixels(-1, 8, 8)).save(folder / "1" / "turned.png", exif=exif)
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(folder / "1" / "moving.gif", save_all=True, append_images=frames[1:])
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(folder / "1" / "through.png")
    cut = {f"0/cut{i}.png": "not a" for i in range(3)}
    return {**cut, "1/deep.png": "pixels of kind", "1/moving.gif": "2 images in one file"}


@pytest.mark.parametrize("n", [20, pytest.param(5000, marks=pytest.mark.slow)])
def test_a_folder_with_everything_in_it(tmp_path: Path, n: int) -> None:
    bad = strange(tmp_path, n)
    assert "0/cut0.png: not a" in refusal(tmp_path)
    source = Source(str(tmp_path), skip_bad=True)
    data = source.open()
    assert len(data) == n + 3
    files = [str(Path(name).relative_to(tmp_path)) for name in data.files]
    assert not set(files) & set(bad)
    lost = [note for note in data.notes if note.startswith("skipped")]
    assert lost[0].startswith(f"skipped 5 of {n + 8} images: {tmp_path}/0/cut0.png: not a")
    assert all(f"{tmp_path}/{name}: {words}" in lost[0] for name, words in bad.items())
    assert f"left out of {tmp_path}, no images by their names: 0/readme.txt" in data.notes
    image = dict(zip(files, data.rows(), strict=True))
    assert torch.equal(image["1/turned.png"], pixels(-1, 8, 8).rot90(-1, (1, 2)))
    assert image["1/through.png"].unique().tolist() == [255]
    assert image["1/cmyk.tiff"].flatten(1).unique(dim=1).flatten().tolist() == [255, 0, 0]
    assert data.to_dict()["skip_bad"] is True
    for name, words in bad.items():  # each is named where it is the only one
        for other in bad:
            os.rename(tmp_path / other, tmp_path / f"{other}.away") if other != name else None
        assert f"{name}: {words}" in refusal(tmp_path)
        for other in bad:
            os.rename(tmp_path / f"{other}.away", tmp_path / other) if other != name else None


def test_pictures_of_phones_are_one_picture(tmp_path: Path) -> None:
    first, second = (picture(pixels(i, 16, 16)) for i in range(2))
    first.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[second])
    assert len(Source(str(tmp_path)).open()) == 1


# The cache


def test_decoded_images_are_kept_and_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSGM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("msgm.data.cache.KEEP", 3)
    for i in range(4):
        save(tmp_path / "data" / "ab"[i % 2] / f"{i}.png", pixels(i))
    source = Source(str(tmp_path / "data"))
    first = source.open()
    with monkeypatch.context() as patch:
        patch.setattr("msgm.data.source.decode", None)  # nothing is decoded again
        second = source.open()
    assert isinstance(second.store, np.memmap)
    assert torch.equal(first.rows(), second.rows()) and torch.equal(first.labels, second.labels)
    assert (first.to_dict(), first.label_names, list(first.files)) == (
        second.to_dict(),
        second.label_names,
        list(second.files),
    )
    plain = second.select(slice(None))
    assert second.digest == plain.digest == first.digest  # the first is kept, the second worked out
    assert np.array_equal(second.marks, first.marks) and np.array_equal(plain.marks, first.marks)
    (folder,) = (tmp_path / "cache").iterdir()
    for damaged in ("pixels.bin", "meta.json"):
        path = folder / damaged
        path.write_bytes(path.read_bytes()[:-1])
        assert source.open().digest == first.digest
        assert len(list((tmp_path / "cache").iterdir())) == 1
    (tmp_path / "data" / "README").write_text("hello")
    with monkeypatch.context() as patch:
        patch.setattr("msgm.data.source.decode", None)
        assert source.open().notes == [f"left out of {tmp_path / 'data'}, no images by their names: README"]
    save(tmp_path / "data" / "a" / "0.png", pixels(9))
    assert torch.equal(source.open().rows([0])[0], pixels(9))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MSGM_CACHE", str(tmp_path / "file"))
    assert "set MSGM_CACHE to a folder with room" in refusal(tmp_path / "data")


def test_grey_ones_become_colour_also_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msgm.data.cache.KEEP", 2)
    monkeypatch.setattr("msgm.data.cache.PART", 16)
    images = [pixels(0, channels=1), pixels(1, channels=1), pixels(2)]
    for i, image in enumerate(images):
        save(tmp_path / f"{i}.png", image)
    read = Source(str(tmp_path), size=4).open()
    assert torch.equal(read.rows(), torch.stack([image.expand(3, 4, 4) for image in images]))


# Other containers


def tar(path: Path, members: dict[str, bytes]) -> None:
    import tarfile

    with tarfile.open(path, "w") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))


def test_webdataset(tmp_path: Path) -> None:
    for shard in range(2):
        members = {}
        for i in (2 * shard, 2 * shard + 1):
            beside = json.dumps({"age": 10 * i, "note": "x"}).encode()
            members |= {f"{i}.png": png(pixels(i)), f"{i}.cls": str(i % 2).encode(), f"{i}.json": beside}
        tar(tmp_path / f"train-{shard}.tar", members)
    data = Source(str(tmp_path)).open()
    assert torch.equal(data.rows(), torch.stack([pixels(i) for i in range(4)]))
    assert labels(data) == [0, 1, 0, 1] and data.columns["age"].tolist() == [0, 10, 20, 30]
    assert data.dropped == {"note": "text"}
    tar(tmp_path / "train-2.tar", {"4.png": png(pixels(4)), "4.cls": b"0", "4.json": b'{"label": 1}'})
    with pytest.raises(UserError, match="columns of one name, label, with different values"):
        Source(str(tmp_path)).open()


@pytest.mark.parametrize(
    "members",
    [
        {"0.png": png(pixels(0)), "0.cls": b"cat", "1.png": png(pixels(1)), "1.cls": b"dog"},
        {"0.png": png(pixels(0)), "0.cls": b"0", "1.jpg": png(pixels(1)), "1.cls": b"1"},
    ],
    ids=["text", "suffixes"],
)
def test_of_a_whole_webdataset_it_is_said_what_is_wrong(members: dict[str, bytes], tmp_path: Path) -> None:
    tar(tmp_path / "x.tar", members)
    with pytest.raises(UserError, match=r"all images need one suffix, and \.cls a whole number") as refused:
        Source(str(tmp_path / "x.tar")).open()
    assert "get it again" not in str(refused.value)
    named: dict[str, bytes] = {}
    for i, name in enumerate(("dog", "cat")):
        named |= {f"{i}.png": png(pixels(i)), f"{i}.json": json.dumps({"label": name}).encode()}
    tar(tmp_path / "y.tar", named)
    data = Source(str(tmp_path / "y.tar")).open()
    assert labels(data) == [1, 0] and data.label_names == {0: "cat", 1: "dog"}


def test_arrow_on_disk_and_numbers_as_names(tmp_path: Path) -> None:
    from datasets import ClassLabel, Dataset, DatasetDict, Features
    from datasets import Image as Picture

    kind = Features({"picture": Picture(), "label": ClassLabel(names=["10", "2", "7"])})
    rows = {"picture": [{"bytes": png(pixels(i)), "path": None} for i in range(3)], "label": [0, 1, 2]}
    one = Dataset.from_dict(rows, features=kind)
    DatasetDict({"train": one, "validation": one.select([2])}).save_to_disk(tmp_path / "both")
    data = Source(str(tmp_path / "both")).open()
    assert torch.equal(data.rows(), torch.stack([pixels(i) for i in range(3)]))
    assert labels(data) == [10, 2, 7] and data.label_names == {10: "10", 2: "2", 7: "7"}
    assert labels(Source(str(tmp_path / "both")).open("test")) == [7]
    one.save_to_disk(tmp_path / "one")
    assert labels(Source(str(tmp_path / "one")).open()) == [10, 2, 7]


def test_names_of_the_hub_are_read_from_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for name in ("owner--pets", "uoft-cs--cifar10"):
        repository = tmp_path / f"datasets--{name}"
        save(repository / "snapshots" / "abc" / "train" / "cat" / "0.png", pixels(0))
        save(repository / "snapshots" / "abc" / "train" / "dog" / "0.png", pixels(1))
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text("abc")
    pets, cifar = Source("owner/pets").open(), Source("cifar10").open()
    assert (pets.name, pets.label_names, len(pets)) == ("pets", {0: "cat", 1: "dog"}, 2)
    assert cifar.digest == pets.digest and cifar.name == "cifar10"
    assert "owner/absent: no such data" in refusal("owner/absent")
    assert "celeba: not found without dir" in refusal("celeba")


def test_official_binary_archives(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    stl = generator.integers(0, 256, (2, 3, 96, 96), np.uint8)
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    stl.swapaxes(2, 3).tofile(folder / "train_X.bin")
    np.array([10, 1], np.uint8).tofile(folder / "train_y.bin")
    (folder / "class_names.txt").write_text("\n".join("abcdefghij"))
    data = Source("stl10", dir=str(tmp_path)).open()
    assert np.array_equal(data.store, stl) and labels(data) == [9, 0] and data.label_names[9] == "j"
    cifar = generator.integers(0, 10, (1, 1 + 3072)).astype(np.uint8)
    folder = tmp_path / "cifar10" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for name in ("test_batch", *(f"data_batch_{i}" for i in range(1, 6))):
        cifar.tofile(folder / f"{name}.bin")
    data = Source("cifar10", dir=str(tmp_path)).open()
    assert np.array_equal(data.store[4].reshape(-1), cifar[0, 1:]) and labels(data) == [cifar[0, 0]] * 5
    (folder / "test_batch.bin").write_bytes(b"short")
    assert "test_batch.bin: truncated or damaged" in refusal("cifar10", split="test", dir=str(tmp_path))


@pytest.mark.parametrize(("name", "test", "shape"), [("cifar10", 10000, (3, 32, 32)), ("celeba", 2000, (3, 89, 89))])
def test_data_sets_by_name(test_data: Path, name: str, test: int, shape: tuple[int, ...]) -> None:
    data = Source(name, dir=str(test_data)).open("test")
    assert (len(data), data.shape) == (test, shape)
    rule, count = ("label in ['dog', 'automobile']", 2000) if name == "cifar10" else ("Bangs == 1", 286)
    assert len(ForgetRequest(rule).split(data).forget) == count
