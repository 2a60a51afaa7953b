"""Reading images: exact pixels and columns, and the file that is named when one is wrong."""

import gzip
import hashlib
import io
import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import Tensor

from msgm.cli.options import Data
from msgm.data import Images, Source
from msgm.data import table as tables
from msgm.data.find import EMBEDDED
from msgm.data.idx import read_idx, write_idx
from msgm.errors import UserError

RECORD = json.loads((EMBEDDED / "data.json").read_text(encoding="utf-8"))


def pixels(seed: int, height: int = 4, width: int = 4, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (channels, height, width), generator=generator, dtype=torch.uint8)


def picture(values: Tensor) -> Image.Image:
    return Image.fromarray(values[0].numpy() if len(values) == 1 else values.permute(1, 2, 0).numpy())


def png(values: Tensor) -> bytes:
    buffer = io.BytesIO()
    picture(values).save(buffer, "PNG")
    return buffer.getvalue()


def save(path: Path, values: Tensor) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(values))
    return path


def refusal(name: Path | str, split: Any = "train", **settings: Any) -> str:
    with pytest.raises(UserError) as caught:
        Source(str(name), **settings).open(split)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Images


def toy(**changes: Any) -> Images:
    settings: dict[str, Any] = {
        "pixels": torch.arange(24, dtype=torch.uint8).reshape(3, 1, 2, 4),
        "columns": {"label": torch.tensor([5, 6, 7]), "age": torch.tensor([1, 0, 1])},
        "name": "toy",
    }
    return Images.of(**{**settings, **changes})


def test_rows_stay_together() -> None:
    data = toy()
    assert len(data) == 3
    assert data.shape == (1, 2, 4)
    for index in (torch.tensor([True, False, True]), torch.tensor([0, 2]), [0, 2], slice(0, 3, 2)):
        part = data.select(index)
        assert torch.equal(part.rows(), data.rows()[[0, 2]])
        assert part.labels.tolist() == [5, 7]
        assert part.columns["age"].tolist() == [1, 1]
        assert part.name == "toy"


def test_the_deviation_is_that_of_all_values(monkeypatch: pytest.MonkeyPatch) -> None:
    data = Images.of(torch.stack([pixels(i) for i in range(50)]), name="many")
    expected = float(data.rows().double().std())
    monkeypatch.setattr("msgm.data.images.CHUNK", 100)
    assert data.std == pytest.approx(expected, rel=1e-12)


def test_malformed_data_are_refused() -> None:
    with pytest.raises(UserError, match=r"toy: images must be uint8 \(N, C, H, W\), not float32"):
        toy(pixels=torch.zeros(3, 1, 2, 4))
    with pytest.raises(UserError, match=r"column 'label' must be int64 \(3,\), not torch\.int64 \(2,\)"):
        toy(columns={"label": torch.tensor([1, 2])})
    with pytest.raises(UserError, match=r"column 'label' must be int64 \(3,\), not torch\.float32"):
        toy(columns={"label": torch.zeros(3)})
    with pytest.raises(UserError, match=r"toy: no labels \(columns: age\)"):
        _ = toy(columns={"age": torch.tensor([1, 0, 1])}).labels


def test_the_digest_is_of_rows_in_order() -> None:
    data = toy()
    assert data.digest == "6c3cb208c6a9064078da7b2a43a55647538f63c6d96c6765003103173816608b"
    assert toy(columns=dict(reversed(data.columns.items())), name="other").digest == data.digest
    others = [
        data.select([1, 0, 2]),
        data.select([0, 1]),
        toy(pixels=data.rows().reshape(3, 1, 4, 2)),
        toy(pixels=data.rows() + 1),
        toy(columns={"label": data.labels}),
        toy(columns={"label": data.labels, "size": data.columns["age"]}),
        toy(columns={"label": data.columns["age"], "age": data.labels}),
    ]
    assert len({data.digest, *(other.digest for other in others)}) == len(others) + 1


# The embedded subset and MNIST's files


def test_the_embedded_files_are_the_recorded_ones() -> None:
    assert sorted(RECORD["files"]) == sorted(path.name for path in EMBEDDED.glob("*ubyte*"))
    for name, expected in RECORD["files"].items():
        assert hashlib.sha256((EMBEDDED / name).read_bytes()).hexdigest() == expected
    assert sum((EMBEDDED / name).stat().st_size for name in RECORD["files"]) < 2_000_000
    assert "CC BY-SA 3.0" in RECORD["licence"]
    readme = (EMBEDDED / "README.md").read_text(encoding="utf-8")
    assert all(word in readme for word in ("LeCun", "Cortes", "Burges", "CC BY-SA 3.0"))


@pytest.mark.parametrize(("split", "size"), [("train", 8000), ("test", 2000)])
def test_the_embedded_subset_is_the_recorded_one(split: Any, size: int) -> None:
    data, record = Source("demo").open(split), RECORD["splits"][split]
    assert (len(data), data.shape, data.name) == (size, (1, 28, 28), "demo")
    assert data.labels.bincount().tolist() == record["per_digit"]
    assert data.digest == record["sha256"]
    assert "CC BY-SA 3.0" in data.about
    assert Source("demo").open(split).digest == data.digest


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_embedded_subset_is_what_its_record_says_of_mnist(test_data: Path, split: Any) -> None:
    record = RECORD["splits"][split]
    full = Source("mnist", dir=str(test_data)).open(split)
    assert full.digest == record["source_sha256"]
    rows = sorted(random.Random(RECORD["seed"]).sample(range(len(full)), record["images"]))
    assert hashlib.sha256(",".join(map(str, rows)).encode()).hexdigest() == record["rows_sha256"]
    assert full.select(rows).digest == record["sha256"]


@pytest.fixture
def idx(tmp_path: Path) -> Path:
    """Three training images, one gzipped file and one not; no test split."""
    images = torch.arange(48, dtype=torch.uint8).reshape(3, 4, 4)
    write_idx(tmp_path / "raw.gz", images)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(gzip.decompress((tmp_path / "raw.gz").read_bytes()))
    (tmp_path / "raw.gz").unlink()
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", torch.tensor([3, 0, 7], dtype=torch.uint8))
    return tmp_path


def test_idx_files_hold_the_standard_bytes(tmp_path: Path) -> None:
    values = torch.tensor([[[1, 2], [3, 4]]], dtype=torch.uint8)
    write_idx(tmp_path / "a.gz", values)
    content = (tmp_path / "a.gz").read_bytes()
    assert gzip.decompress(content) == bytes([0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 2, 1, 2, 3, 4])
    assert content[3:8] == bytes(5)  # no file name, no date
    assert torch.equal(read_idx(tmp_path / "a.gz"), values)


def test_mnist_files_are_found_in_the_usual_places(idx: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("root")
    (root / "MNIST").mkdir()
    (root / "MNIST" / "raw").symlink_to(idx)
    found = [
        Source("mnist", dir=str(idx)).open(),
        Source("mnist", dir=str(root)).open(),
        Source(str(idx)).open(),
    ]
    for data in found:
        assert data.rows().flatten().tolist() == list(range(48))
        assert data.labels.tolist() == [3, 0, 7]
        assert data.shape == (1, 4, 4)
    halved = Source("mnist", dir=str(idx), size=2).open()
    assert halved.shape == (1, 2, 2)


def test_damaged_mnist_files_are_named(idx: Path) -> None:
    images, labels = idx / "train-images-idx3-ubyte", idx / "train-labels-idx1-ubyte.gz"
    assert "no t10k-images-idx3-ubyte[.gz], which the test split needs" in refusal("mnist", dir=str(idx), split="test")
    whole, packed = images.read_bytes(), labels.read_bytes()
    for content in (whole[:-1], whole[:9], whole + b"\0"):
        images.write_bytes(content)
        assert refusal("mnist", dir=str(idx)).startswith(f"{images}: truncated or damaged")
    images.write_bytes(b"\0\0\x0d" + whole[3:])
    assert f"{images}: not an idx file" in refusal("mnist", dir=str(idx))
    images.write_bytes(whole)
    for content in (packed[:-9], packed[:14], packed[:12] + b"\xff\xff" + packed[14:]):
        labels.write_bytes(content)
        assert refusal("mnist", dir=str(idx)).startswith(f"{labels}: cannot be read")
    write_idx(labels, torch.zeros(2, dtype=torch.uint8))
    assert "(3, 4, 4) images and (2,) labels do not fit" in refusal("mnist", dir=str(idx))
    labels.unlink()
    assert "no train-labels-idx1-ubyte[.gz], which the train split needs" in refusal(idx)


def test_archives_that_inflate_without_end_are_refused(idx: Path, tmp_path: Path, monkeypatch) -> None:
    """A header that is true and one that is not; nothing is inflated beyond what the header says."""
    labels, head = idx / "train-labels-idx1-ubyte.gz", b"\0\0\x08\x01"
    monkeypatch.setattr("msgm.data.idx.SMALL", 2**16)
    labels.write_bytes(gzip.compress(head + (2**27).to_bytes(4, "big") + bytes(2**27)))
    assert "134217728 values in so small a file are no images" in refusal("mnist", dir=str(idx))
    labels.write_bytes(gzip.compress(head + (3).to_bytes(4, "big") + bytes(2**27)))
    assert "truncated or damaged, 3 values after the header expected" in refusal("mnist", dir=str(idx))


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"[" * 100_000, bytes(range(256))], ids=["0", "text", "deep", "256"]
)
def test_no_tar_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(content)
    assert "x.tar: not a complete WebDataset" in refusal(tmp_path / "x.tar")


# Names and settings


def test_a_name_that_means_nothing_lists_what_does(tmp_path: Path) -> None:
    message = refusal(tmp_path / "absent")
    assert message.startswith(f"{tmp_path / 'absent'}: no such data; expected demo, mnist")
    (tmp_path / "notes.txt").write_text("hello")
    assert "notes.txt: is no .parquet or .tar file" in refusal(tmp_path / "notes.txt")
    assert "not found without dir, the folder that has it" in refusal("mnist")
    assert "data size must be at least 1 and at most 4096, not 0" in refusal("demo", size=0)
    assert "split must be train or test, not 'valid'" in refusal("demo", split="valid")
    assert "no column 'Bangs' to use as labels; known columns: label" in refusal("demo", labels="Bangs")


# Folders


def test_class_folders_give_labels_in_the_order_of_their_names(tmp_path: Path) -> None:
    expected = [pixels(i) for i in range(4)]
    save(tmp_path / "dog" / "1.png", expected[3])
    save(tmp_path / "cat" / "b.png", expected[1])
    save(tmp_path / "cat" / "a.png", expected[0])
    save(tmp_path / "cat" / "deep" / "c.PNG", expected[2])
    (tmp_path / ".cache").mkdir()
    (tmp_path / "cat" / ".DS_Store").write_bytes(b"junk")
    data = Source(tmp_path.name, dir=str(tmp_path.parent)).open()
    assert torch.equal(data.rows(), torch.stack(expected))
    assert data.labels.tolist() == [0, 0, 0, 1]
    assert data.label_names == {0: "cat", 1: "dog"}
    assert data.name == tmp_path.name


def test_a_digest_does_not_depend_on_the_order_in_which_files_were_made(tmp_path: Path) -> None:
    names = [f"{kind}/{i}.png" for kind in "ab" for i in range(3)]
    for folder, order in (("one", names), ("two", names[::-1])):
        for name in order:
            save(tmp_path / folder / name, pixels(names.index(name)))
    one = Source(str(tmp_path / "one")).open()
    assert Source(str(tmp_path / "two")).open().digest == one.digest
    rows = [{"image": {"bytes": png(image), "path": None}} for image in one.rows()]
    table = pa.table({"image": [row["image"] for row in rows], "label": one.labels.tolist()})
    pq.write_table(table, tmp_path / "same.parquet")
    assert Source(str(tmp_path / "same.parquet")).open().digest == one.digest


def test_splits_of_a_folder(tmp_path: Path) -> None:
    for name in ("train/a/1.png", "train/b/1.png", "train/c/1.png", "test/c/1.png", "test/a/1.png"):
        save(tmp_path / name, pixels(len(name)))
    assert Source(str(tmp_path)).open().labels.tolist() == [0, 1, 2]
    test = Source(str(tmp_path)).open("test")
    assert test.labels.tolist() == [0, 2]  # numbered by the train split's classes
    assert test.label_names == {0: "a", 1: "b", 2: "c"}
    stray = save(tmp_path / "test" / "d" / "1.png", pixels(0))
    assert f"{stray}: class 'd' is not in the train split (a, b, c)" in refusal(tmp_path, split="test")
    assert f"no test split; put the images in {tmp_path / 'train'}/train" in refusal(tmp_path / "train", split="test")


def test_a_folder_without_classes_has_no_labels(tmp_path: Path) -> None:
    save(tmp_path / "2.png", pixels(2))
    save(tmp_path / "1.png", pixels(1))
    data = Source(str(tmp_path)).open()
    assert torch.equal(data.rows(), torch.stack([pixels(1), pixels(2)]))
    with pytest.raises(UserError, match=r"no labels \(it has no columns\)"):
        _ = data.labels
    save(tmp_path / "cat" / "3.png", pixels(3))
    assert f"{tmp_path / '1.png'}: lies beside the class folders cat" in refusal(tmp_path)


def test_metadata_gives_columns(tmp_path: Path) -> None:
    for i in range(3):
        save(tmp_path / "images" / f"{i}.png", pixels(i))
    table = tmp_path / "metadata.csv"
    table.write_text("file_name,Bangs,note,age\nimages/2.png,1,x,-5\nimages/0.png,0,3,40\n")
    data = Source(str(tmp_path)).open()
    assert torch.equal(data.rows(), torch.stack([pixels(2), pixels(0)]))
    assert {name: column.tolist() for name, column in data.columns.items()} == {
        "Bangs": [1, 0],
        "age": [-5, 40],
    }
    assert Source(str(tmp_path), labels="Bangs").open().labels.tolist() == [1, 0]
    assert data.dropped == {"note": "text"}
    assert data.notes == [
        f"left out, not named in {table}: images/1.png",
        f"{tmp_path.name}: columns that rules cannot use: note (text)",
    ]
    by_note = Source(str(tmp_path), labels="note").open()
    assert (by_note.labels.tolist(), by_note.label_names) == ([1, 0], {0: "3", 1: "x"})
    assert "no column 'colour' to use as labels; known columns: Bangs, age" in refusal(tmp_path, labels="colour")
    table.write_bytes(b"\xef\xbb\xbffile_name,label\r\nimages/2.png,dog\r\nimages/0.png,cat\r\nimages/1.png,dog\r\n")
    named = Source(str(tmp_path)).open()
    assert (named.labels.tolist(), named.label_names) == ([1, 0, 1], {0: "cat", 1: "dog"})
    table.write_text("file_name,label\nimages/9.png,1\n")
    assert refusal(tmp_path).startswith(f"{tmp_path / 'images' / '9.png'}: named in {table}")
    table.write_text("name,label\nimages/2.png,1\n")
    assert f"{table}: needs a column file_name; found name, label" in refusal(tmp_path)
    table.write_bytes(b"file_name\n\xff\xfe\n")
    assert f"{table}: not a table" in refusal(tmp_path)
    table.write_text("file_name,label\n")
    assert f"{tmp_path}: no images in it" in refusal(tmp_path)


def test_damaged_and_foreign_files_are_named(tmp_path: Path) -> None:
    for i in range(3):
        save(tmp_path / f"{i}.png", pixels(i, 32, 32))
    whole = (tmp_path / "1.png").read_bytes()
    for length in range(0, len(whole) - 12, 97):
        (tmp_path / "1.png").write_bytes(whole[:length])
        assert refusal(tmp_path).startswith(f"{tmp_path / '1.png'}: not a")
    (tmp_path / "1.png").unlink()
    picture(pixels(0, 64, 64)).save(tmp_path / "1.jpg")
    whole = (tmp_path / "1.jpg").read_bytes()
    (tmp_path / "1.jpg").write_bytes(whole[: len(whole) // 2])
    assert f"{tmp_path / '1.jpg'}: not a complete image" in refusal(tmp_path)
    (tmp_path / "1.jpg").write_text("hello")
    assert f"{tmp_path / '1.jpg'}: not an image of a known format" in refusal(tmp_path)
    (tmp_path / "1.jpg").unlink()
    Image.fromarray(np.zeros((32, 32), np.uint16)).save(tmp_path / "deep.png")
    assert f"{tmp_path / 'deep.png'}: pixels of kind 'I;16'; images of 8 bits" in refusal(tmp_path)


def test_sizes_and_channels_must_agree_unless_image_size_is_given(tmp_path: Path) -> None:
    save(tmp_path / "1.png", pixels(1, 4, 4))
    save(tmp_path / "2.png", pixels(2, 4, 6))
    message = refusal(tmp_path)
    assert message.startswith(
        f"{tmp_path / '2.png'}: 6×4 colour, but {tmp_path / '1.png'} is 4×4 colour; give size, to bring"
    )
    data = Source(str(tmp_path), size=4).open()
    assert torch.equal(data.rows(), torch.stack([pixels(1, 4, 4), pixels(2, 4, 6)[:, :, 1:5]]))
    grey = pixels(2, 4, 4, channels=1)
    save(tmp_path / "2.png", grey)
    assert f"{tmp_path / '2.png'}: 4×4 grey, but" in refusal(tmp_path)
    assert torch.equal(Source(str(tmp_path), size=4).open().rows()[1], grey.expand(3, 4, 4))
    (tmp_path / "1.png").unlink()
    assert torch.equal(Source(str(tmp_path)).open().rows(), grey[None])


def test_resizing_is_bicubic_of_the_middle_square(tmp_path: Path) -> None:
    source = pixels(0, 109, 89)
    save(tmp_path / "face.png", source)
    expected = picture(source).crop((0, 10, 89, 99)).resize((32, 32), Image.Resampling.BICUBIC)
    data = Source(str(tmp_path), size=32).open()
    assert torch.equal(data.rows()[0].permute(1, 2, 0), torch.from_numpy(np.array(expected)))


def test_pictures_are_read_as_they_are_shown(tmp_path: Path) -> None:
    source = pixels(0, 2, 3, channels=1)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90° clockwise
    picture(source).save(tmp_path / "turned.png", exif=exif)
    assert torch.equal(Source(str(tmp_path)).open().rows()[0, 0], source[0].rot90(-1))
    (tmp_path / "turned.png").unlink()
    Image.new("1", (2, 2), 1).save(tmp_path / "bits.png")
    assert Source(str(tmp_path)).open().rows().tolist() == [[[[255, 255], [255, 255]]]]


# Parquet


def table(n: int = 4, **columns: Any) -> pa.Table:
    images = [{"bytes": png(pixels(i)), "path": f"{i}.png"} for i in range(n)]
    return pa.table({"image": images, **columns})


def test_parquet_in_the_schema_of_hugging_face(tmp_path: Path) -> None:
    features = {"image": {"_type": "Image"}, "label": {"names": ["no_bangs", "bangs"], "_type": "ClassLabel"}}
    rows = table(
        label=[0, 1, 1, 0],
        Male=pa.array([1, 0, 0, 1], pa.int8()),
        Young=[True, False, True, True],
        image_id=["a", "b", "c", "d"],
        weight=[0.5, 1.0, 1.5, 2.0],
        partial=[1, None, 2, 3],
    ).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(rows, tmp_path / "train.parquet")
    for name in (tmp_path, tmp_path / "train.parquet"):
        data = Source(str(name)).open()
        assert torch.equal(data.rows(), torch.stack([pixels(i) for i in range(4)]))
        assert {column: values.tolist() for column, values in data.columns.items()} == {
            "label": [0, 1, 1, 0],
            "Male": [1, 0, 0, 1],
            "Young": [1, 0, 1, 1],
        }
        assert data.label_names == {0: "no_bangs", 1: "bangs"}
    by_sex = Source(str(tmp_path), labels="Male").open()
    assert by_sex.labels.tolist() == [1, 0, 0, 1]
    assert by_sex.label_names == {}
    assert "no test.parquet (found train.parquet)" in refusal(tmp_path, split="test")
    assert "one file is a train split" in refusal(tmp_path / "train.parquet", split="test")


def test_parquet_shards_and_raw_bytes(tmp_path: Path) -> None:
    whole = pa.table({"picture": [png(pixels(i)) for i in range(4)], "label": [3, 2, 1, 0]})
    pq.write_table(whole.slice(0, 3), tmp_path / "train-00000-of-00002.parquet")
    pq.write_table(whole.slice(3), tmp_path / "train-00001-of-00002.parquet")
    data = Source(str(tmp_path)).open()
    assert torch.equal(data.rows(), torch.stack([pixels(i) for i in range(4)]))
    assert data.labels.tolist() == [3, 2, 1, 0]
    second = tmp_path / "train-00001-of-00002.parquet"
    away = second.rename(tmp_path / "away")
    assert refusal(tmp_path).startswith(f"{second}: a shard of the split that is not there")
    away.rename(second)
    pq.write_table(whole.slice(3).drop_columns("label"), tmp_path / "train-00001-of-00002.parquet")
    assert "train-00001-of-00002.parquet: its columns differ from those of" in refusal(tmp_path)


def test_damaged_parquet_is_named(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    good = {"bytes": png(pixels(0)), "path": "0.png"}
    for bad, message in [
        ({"bytes": good["bytes"][:40], "path": "1.png"}, "row 1 (1.png): not a"),
        ({"bytes": b"hello", "path": None}, "row 1: not an image of a known format"),
        ({"bytes": None, "path": "1.png"}, "row 1 (1.png): no image bytes"),
        (None, "row 1: no image bytes"),
    ]:
        pq.write_table(pa.table({"image": [good, bad]}), path)
        assert refusal(path).startswith(f"{path}, {message}")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert refusal(path).startswith(f"{path}: not a complete Parquet file")
    pq.write_table(pa.table({"label": [1], "name": ["a"]}), path)
    assert f"{path}: no column image with encoded images" in refusal(path)
    assert "columns: label, name" in refusal(path)
    pq.write_table(table(4).slice(0, 0), path)
    assert f"{path}: no images in it" in refusal(path)


# Waiting


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("patience", "shown"), [(-1.0, True), (1e9, False)])
def test_a_bar_is_shown_on_stderr_only_to_those_who_wait(
    monkeypatch: pytest.MonkeyPatch, patience: float, shown: bool
) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(tables, "PATIENCE", patience)
    items: Iterator[int] = tables.waited_for(range(5), 5, "reading images")
    assert list(items) == [0, 1, 2, 3, 4]
    assert ("reading images" in terminal.getvalue()) == shown


@pytest.mark.parametrize(
    ("name", "split", "size"), [("celeba", "test", 2000), ("cifar10/train_png_4k.parquet", "train", 4000)]
)
def test_real_parquet_files(test_data: Path, name: str, split: Any, size: int) -> None:
    data = Source(name, dir=str(test_data), size=32).open(split)
    assert (len(data), data.shape) == (size, (3, 32, 32))
    if name == "celeba":
        assert torch.equal(data.columns["Bangs"], data.labels)
        assert data.labels.sum() == 286
        assert len(data.columns) == 41
        assert data.label_names == {0: "no_bangs", 1: "bangs"}
    else:
        assert data.labels.bincount().tolist() == [396, 366, 420, 384, 422, 393, 414, 385, 407, 413]
        assert data.label_names[3] == "cat"


# Records


def test_a_source_is_one_entry_of_the_record(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/1.png"):
        save(tmp_path / "pets" / name, pixels(len(name)))
    source = Source("pets", dir=str(tmp_path), size=2)
    images = source.open()
    entry = {"name": "pets", "dir": str(tmp_path), "size": 2, "sha256": images.digest, "images": 2}
    entry["classes"] = {"0": "a", "1": "b"}
    assert images.to_dict() == entry
    assert Source.from_dict(entry) == Source("pets", dir=str(tmp_path), size=2, recorded=images.digest)
    assert toy().to_dict() == {"name": "toy", "sha256": toy().digest, "images": 3}
    with pytest.raises(UserError, match="names no data; say which images"):
        Source.of_record({})


def test_a_folder_that_has_changed_since_is_refused_or_on_record(tmp_path: Path) -> None:
    folder = tmp_path / "pets"
    for name in ("a/1.png", "b/1.png"):
        save(folder / name, pixels(1))
    record = {"data": Source(str(folder)).open().to_dict()}
    before = record["data"]["sha256"]
    moved = folder.rename(tmp_path / "moved")
    assert Source.of_record(record, name=str(moved)).recorded is None  # another name, another source
    moved.rename(folder)
    assert Source.of_record(record).open().digest == before

    save(folder / "b" / "1.png", pixels(2))
    after = Source(str(folder)).open().digest
    for source in (Source.of_record(record), Source.of_record(record, name=str(folder))):
        with pytest.raises(UserError, match=rf"{after}.*{before}.*changed: ok"):
            source.open()
    going_on = Source.of_record(record, changed="ok").open()
    assert going_on.to_dict() == {
        "name": str(folder), "changed": "ok", "recorded": before, "sha256": after, "images": 2,
        "classes": {"0": "a", "1": "b"},
    }  # fmt: skip
    with pytest.raises(UserError, match="changed: ok"):
        Data().of(SimpleNamespace(record=record)).open()
    smaller = Source.of_record(record, size=2, background="black")
    assert smaller.open().digest not in (before, after) and smaller.to_dict()["size"] == 2
    assert smaller.open().notes == [
        f"{folder}: read with other size and background than the record says: whether the images have changed since "
        f"cannot be told"
    ]
    for quiet in (replace(smaller, changed="ok"), Source.of_record(record, name=str(tmp_path), size=2)):
        assert not any("cannot be told" in note for note in quiet.open().notes)


def test_what_reads_alike_is_compared_and_options_that_are_not_given_are_the_records(tmp_path: Path) -> None:
    save(tmp_path / "pets" / "1.png", pixels(1))
    dark = Source(str(tmp_path / "pets"), background="black", skip_bad=True)
    model = SimpleNamespace(record={"data": dark.open().to_dict()})
    own = Data().of(model)
    assert (own.background, own.skip_bad, own.unlike) == ("black", True, ())
    white = Data(background="white").of(model)
    assert white.unlike == ("background",) and white.open().notes == []  # opaque: the same digest


def test_selections_share_the_pixels() -> None:
    data = toy()
    parts = data.select(slice(1)), data.select(data.labels > 5)
    joined = parts[1].join(parts[0])
    assert joined.labels.tolist() == [6, 7, 5]
    assert torch.equal(joined.rows(), data.rows([1, 2, 0]))
    assert torch.equal(joined.select([2, 0]).rows(), data.rows([0, 1]))
    assert all(part.store is data.store for part in (*parts, joined))
    with pytest.raises(ValueError, match="not selections from the same images"):
        data.join(toy())
