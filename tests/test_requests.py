"""Rules: what each selects, and what is said of those that mean nothing."""

import doctest
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from msgm.data import (
    FileRequest,
    ForgetRequest,
    ImageRequest,
    Images,
    IndexRequest,
    Source,
    request_of,
    requests,
    together,
)
from msgm.errors import UserError


@pytest.fixture
def data() -> Images:
    """Ten images; row i has label i // 2, five names, two attributes; its pixel is i."""
    n = torch.arange(10)
    return Images.of(
        n.to(torch.uint8)[:, None, None, None],
        columns={
            "label": n // 2,
            "Bangs": n % 2,
            "Male": (n >= 6).long(),
            "5_o_Clock_Shadow": (n == 4).long(),
        },
        name="toy",
        label_names=("ant", "bee", "cat", "dog", "eel"),
    )


Row = Callable[[int], bool]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("label == 3", lambda i: i // 2 == 3),
        ("label != 3", lambda i: i // 2 != 3),
        ("label < 2", lambda i: i // 2 < 2),
        ("label <= 2", lambda i: i // 2 <= 2),
        ("label > 2", lambda i: i // 2 > 2),
        ("label >= 2", lambda i: i // 2 >= 2),
        ("2 < label", lambda i: i // 2 > 2),
        ("2 >= label", lambda i: i // 2 <= 2),
        ("2 == label", lambda i: i // 2 == 2),
        ("1 < label <= 3", lambda i: 1 < i // 2 <= 3),
        ("3 > label >= 1 != label", lambda i: i // 2 == 2),
        ("label in [0, 3]", lambda i: i // 2 in (0, 3)),
        ("label in (0, 3)", lambda i: i // 2 in (0, 3)),
        ("label in {3}", lambda i: i // 2 == 3),
        ("label not in [0, 3]", lambda i: i // 2 not in (0, 3)),
        ("label in [3, 99]", lambda i: i // 2 == 3),
        ("label > -1 and label != -7 and label == 0", lambda i: i // 2 == 0),
        ("Bangs == 1 and Male == 0", lambda i: i % 2 == 1 and i < 6),
        ("Bangs == 1 or Male == 1", lambda i: i % 2 == 1 or i >= 6),
        ("Bangs == True", lambda i: i % 2 == 1),
        ("not Bangs == 1", lambda i: i % 2 == 0),
        ("label == 0 or label == 1 and Bangs == 1", lambda i: i in (0, 1, 3)),
        ("(label == 0 or label == 1) and Bangs == 1", lambda i: i in (1, 3)),
        ("not (Bangs == 1 or Male == 1)", lambda i: i % 2 == 0 and i < 6),
        ('label == "cat"', lambda i: i // 2 == 2),
        ('"cat" == label', lambda i: i // 2 == 2),
        ("label in ['cat', 0]", lambda i: i // 2 in (2, 0)),
        ('"5_o_Clock_Shadow" == 1', lambda i: i == 4),
        ('0 < "5_o_Clock_Shadow"', lambda i: i == 4),
        ("  label == 3 ", lambda i: i // 2 == 3),
    ],
)
def test_a_rule_selects_exactly(data: Images, rule: str, expected: Row) -> None:
    rows = [i for i in range(10) if expected(i)]
    request = ForgetRequest(rule)
    assert request.mask(data).nonzero().flatten().tolist() == rows
    split = request.split(data)
    assert split.forget.rows().flatten().tolist() == rows
    assert split.retain.rows().flatten().tolist() == [i for i in range(10) if i not in rows]
    assert split.forget.columns["label"].tolist() == [i // 2 for i in rows]
    assert split.forget.label_names == data.label_names
    assert split.to_dict() == {
        "rule": rule,
        "retain": 10 - len(rows),
        "forget": len(rows),
    }


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("", "empty; write a comparison"),
        ("label in [3, 7", "cannot be read ('[' was never closed)"),
        ("label = 3", "cannot be read"),
        ("5_o_Clock_Shadow == 1", "cannot be read (invalid decimal literal)"),
        ("label == 3\0", "cannot be read"),
        ("label in [3] if True else 1", "is not a comparison of a column"),
        ("(" * 500 + "label == 3" + ")" * 500, "cannot be read"),
        ("not " * 20_000 + "label == 3", "cannot be read"),
        ("__import__('os').system('true')", "is not a comparison of a column"),
        ("label == print(3)", "print(3) is neither a whole number nor a class name in quotes"),
        ("label == label.real", "label.real is neither a whole number"),
        ("(lambda: 3)() == label", "is neither a whole number"),
        ("label in [x for x in [3]]", "in wants a list in brackets after it, not [x for x in [3]]"),
        ("label == Bangs", "Bangs is neither a whole number nor a class name in quotes"),
        ("label == 3.0", "3.0 is neither a whole number"),
        ("label > +0", "+0 is neither a whole number"),
        ("label == None", "None is neither a whole number"),
        ("label == b'cat'", "is neither a whole number"),
        ("label == 9223372036854775808", "is too large"),
        ("Bangs", "Bangs alone is no comparison; write Bangs == 1"),
        ("not Bangs", "Bangs alone is no comparison; write Bangs == 1"),
        ("3", "'3' is not a comparison of a column"),
        ("3 == 3", "no column in a comparison"),
        ("label is 3", "write == or in"),
        ("3 in label", "`in` wants the column before it and a list after it"),
        ("label in 3", "in wants a list in brackets after it, not 3"),
        ("label == [3]", "== wants one number or class name after it, not [3]"),
        ("label < 'cat'", "class names have no order; use == or in"),
    ],
)
def test_what_is_no_rule_is_refused_when_it_is_made(rule: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        ForgetRequest(rule)
    assert message in str(caught.value)
    assert str(caught.value).startswith("rule ")


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (
            "Bang == 1",
            "rule 'Bang == 1': toy has no column 'Bang'; did you mean Bangs? "
            "(known columns: 5_o_Clock_Shadow, Bangs, Male, label)",
        ),
        ("qqq == 1", "no column 'qqq' (known columns: 5_o_Clock_Shadow, Bangs, Male, label)"),
        ("label == 0 or qqq == 1", "no column 'qqq'"),
        (
            'label == "kat"',
            "label is never 'kat'; did you mean 'cat'? (label takes 0 (ant), 1 (bee), 2 (cat)",
        ),
        ("label in [0, 'fly']", "label is never 'fly'"),
        ("Bangs == 'yes'", "Bangs is never 'yes' (Bangs takes 0, 1)"),
    ],
)
def test_an_unknown_column_or_name_is_refused_with_what_is_known(data: Images, rule: str, message: str) -> None:
    for act in (ForgetRequest(rule).mask, ForgetRequest(rule).split):
        with pytest.raises(UserError) as caught:
            act(data)
        assert message in str(caught.value)


def test_a_rule_that_selects_nothing_says_which_values_there_are(data: Images) -> None:
    request = ForgetRequest("label in [7, 8] and Bangs == 1")
    assert not request.mask(data).any()
    with pytest.raises(UserError) as caught:
        request.split(data)
    assert str(caught.value) == (
        "rule 'label in [7, 8] and Bangs == 1' selects none of the 10 images of toy; label in [7, 8] "
        "holds for none: label takes 0 (ant), 1 (bee), 2 (cat), 3 (dog), 4 (eel)"
    )
    with pytest.raises(UserError, match=r"none of the 10 images of toy; label > 4 holds for none: label takes 0"):
        ForgetRequest("label > 4").split(data)
    with pytest.raises(UserError, match=r"none of the 10 images of toy$"):
        ForgetRequest("label == 1 and label == 2").split(data)


def test_many_values_are_summed_up() -> None:
    data = Images.of(torch.zeros(30, 1, 1, 1, dtype=torch.uint8), columns={"age": torch.arange(30)}, name="people")
    with pytest.raises(UserError, match=r"age == 99 holds for none: age takes 30 values from 0 to 29$"):
        ForgetRequest("age == 99").split(data)


def test_a_rule_that_selects_everything_is_refused(data: Images) -> None:
    with pytest.raises(UserError, match=r"'label >= 0' selects all 10 images of toy: none would be left"):
        ForgetRequest("label >= 0").split(data)


def test_a_request_is_a_value() -> None:
    assert ForgetRequest("label == 3") == ForgetRequest("label == 3") != ForgetRequest("label == 7")
    assert len({ForgetRequest("label == 3"), ForgetRequest("label == 3")}) == 1
    with pytest.raises(AttributeError):
        ForgetRequest("label == 3").rule = "label == 7"  # type: ignore[misc]


def test_examples_in_the_documentation() -> None:
    assert doctest.testmod(requests).failed == 0


# Lists


def shelf(folder: Path) -> Images:
    for i, name in enumerate(("cat/1.png", "cat/2.png", "dog/1.png", "dog/deep/3.png")):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((2, 2), i, np.uint8)).save(path)
    return Source(str(folder)).open()


@pytest.mark.parametrize(
    ("files", "rows"),
    [(["cat/1.png"], [0]), (["2.png", "3.png"], [1, 3]), (["dog"], [2, 3]), (["cat/2.png", "dog/deep"], [1, 3])],
)
def test_images_by_file_and_folder(tmp_path: Path, files: list[str], rows: list[int]) -> None:
    images, request = shelf(tmp_path), FileRequest(tuple(files))
    split = request.split(images)
    assert split.forget.rows()[:, 0, 0, 0].tolist() == rows
    assert split.to_dict() == {"files": files, "retain": 4 - len(rows), "forget": len(rows)}
    assert request_of(split.to_dict()) == request
    part = images.select([3, 1, 0])  # a selection has its own order
    assert request.mask(part).tolist() == [row in rows for row in (3, 1, 0)]


def test_folders_above_the_data_are_none_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = shelf(tmp_path / "cat" / "set")
    assert FileRequest(("cat",)).mask(images).tolist() == [True, True, False, False]
    assert FileRequest(("set/cat",)).mask(images).tolist() == [True, True, False, False]
    assert FileRequest((str(tmp_path / "cat" / "set" / "dog"),)).mask(images).tolist() == [False, False, True, True]
    assert FileRequest((str(images.files[3]),)).mask(images).tolist() == [False, False, False, True]
    for name in ("set", "cat/set", str(tmp_path)):
        with pytest.raises(UserError, match="no such file or folder"):
            FileRequest((name,)).mask(images)
    monkeypatch.chdir(tmp_path / "cat" / "set")
    here = Source(".").open().select([2, 0])
    assert FileRequest(("cat",)).mask(here).tolist() == [False, True]


def test_lists_that_fit_nothing(tmp_path: Path, data: Images) -> None:
    images = shelf(tmp_path)
    for files, message in [
        (("1.png",), "1.png: 2 files of .* are called so; write more of the path"),
        (("bird",), "bird: .* has no such file or folder"),
        (("cat", "dog"), "the list of 2 files selects all 4 images"),
        ((), "the list of 0 files selects none of the 4 images"),
    ]:
        with pytest.raises(UserError, match=message):
            FileRequest(files).split(images)
    with pytest.raises(UserError, match="toy: its images have no file names"):
        FileRequest(("1.png",)).split(data)
    with pytest.raises(UserError, match="row 10: toy has rows 0 to 9"):
        IndexRequest((3, 10)).split(data)


def test_images_by_row_number(data: Images) -> None:
    split = IndexRequest((7, 2)).split(data)
    assert split.forget.rows().flatten().tolist() == [2, 7]
    assert request_of(split.to_dict()) == IndexRequest((7, 2))
    assert request_of(ForgetRequest("label == 1").to_dict()) == ForgetRequest("label == 1")


def test_images_by_what_is_in_them(tmp_path: Path) -> None:
    images = shelf(tmp_path / "data")
    for i, name in ((1, "mine/a.png"), (3, "mine/b.png")):
        (tmp_path / "mine").mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(Path(str(images.files[i])).read_bytes())
    request = ImageRequest.of(Source(str(tmp_path / "mine")).open())
    assert request.words == "2 images: a.png, b.png" and request.mask(images).nonzero().flatten().tolist() == [1, 3]
    entry = request.split(images).to_dict()
    assert entry["images"] == [f"{mark:016x}" for mark in images.marks[[1, 3]].tolist()]
    assert request_of(entry) == request
    part = images.select([3, 0])
    assert request.mask(part).tolist() == [True, False]
    Image.fromarray(np.full((2, 2), 99, np.uint8)).save(tmp_path / "mine" / "c.png")
    with pytest.raises(UserError, match=r"image c.png of 3 to forget: not in .*data, pixel for pixel"):
        ImageRequest.of(Source(str(tmp_path / "mine")).open()).split(images)


def test_several_requests_are_one(data: Images) -> None:
    a, b, c = ForgetRequest("label == 1"), IndexRequest((7,)), ForgetRequest("Male == 1")
    both = together(a, b)
    assert both.mask(data).nonzero().flatten().tolist() == [2, 3, 7]
    assert both.words == "label == 1; row 7" and str(both) == "rule 'label == 1' or the list of 1 row numbers"
    assert request_of(both.split(data).to_dict()) == both == together(both, a) == together(a, both)
    assert together(a) == a and together(both, c) == together(a, b, c)
    with pytest.raises(UserError, match="the record's request cannot be read"):
        request_of({"any": 3})


def test_equal_images_on_both_sides_are_counted() -> None:
    pixels = torch.tensor([1, 2, 1, 3, 2, 1], dtype=torch.uint8)[:, None, None, None]
    images = Images.of(pixels, columns={"label": torch.tensor([0, 0, 1, 1, 0, 0])}, name="twins")
    split = ForgetRequest("label == 1").split(images)
    assert split.duplicates == 2  # rows 0 and 5, like row 2
    assert split.notes == ["2 of the retained images are also, pixel for pixel, among those to forget"]
    assert split.to_dict()["duplicates"] == 2
    apart = IndexRequest((0, 2, 5)).split(images)
    assert (apart.duplicates, apart.notes) == (0, [])
    assert "duplicates" not in apart.to_dict()
