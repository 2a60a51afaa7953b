"""One request after another: what was forgotten stays forgotten, and the chain of records shows each change."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import quiet, tiny_data, tiny_model

from msgm import UserError
from msgm.cli.options import meant
from msgm.data import ForgetRequest, Images, IndexRequest, Split, request_of, together
from msgm.forgetting import methods
from msgm.formats import load, save
from msgm.formats.ledger import chain, check, digest, sealed
from msgm.formats.native import RECORD
from msgm.training.earlier import before
from msgm.training.loop import unlearn
from msgm.training.settings import UnlearnSettings

FEW = UnlearnSettings(steps=2, batch=4, seed=5)
FIRST, SECOND, THIRD = ForgetRequest("kind == 1"), ForgetRequest("kind == 2"), IndexRequest((0, 4, 8))


def four() -> Images:
    """Forty images of four kinds."""
    images = tiny_data()
    columns = {**images.columns, "kind": torch.arange(len(images)) % 4}
    return Images.of(images.rows(), columns=columns, name="halves")


def forgotten(split: Split, parent: Any, folder: Path | None = None, **options: Any) -> Any:
    return unlearn(parent, split, method=methods.orthogonal(), settings=FEW, run=quiet(folder), **options)


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models made one after another in folders a, b, c of each other."""
    root = tmp_path_factory.mktemp("chain")
    save(tiny_model(), root / "a")
    forgotten(FIRST.split(four()), load(root / "a"), root / "b")
    forgotten(SECOND.split(four()), load(root / "b"), root / "c")
    return root


def test_what_was_forgotten_before_is_forgotten_along(twice: Path) -> None:
    record = load(twice / "c").record
    assert record["request"] == {"any": [FIRST.to_dict(), SECOND.to_dict()], "retain": 20, "forget": 20}
    assert request_of(record["request"]) == together(FIRST, SECOND)
    both = torch.isin(four().columns["kind"], torch.tensor([1, 2]))
    moved = SECOND.split(four()).also(FIRST)
    assert torch.equal(moved.retain.rows(), four().rows()[~both])
    assert sorted(moved.forget.index.tolist()) == both.nonzero().flatten().tolist()
    assert record["forgotten_sha256"] == moved.forget.digest
    # In memory as in folders, and where the split says both requests already.
    once = forgotten(FIRST.split(four()), load(twice / "a"))
    again = forgotten(together(FIRST, SECOND).split(four()), once).record
    assert again["request"] == record["request"] and again["previous"] == record["previous"]


def test_each_record_is_linked_to_the_one_before(twice: Path) -> None:
    record = load(twice / "c").record
    a, b, c = chain(record)
    assert (a, [b]) == (load(twice / "a").record, chain(load(twice / "b").record)[1:])
    for entry, model in ((a, "a"), (b, "b"), (c, "c")):
        assert entry["weights_sha256"] == load(twice / model).record["weights_sha256"]
    assert "previous" not in a and b["previous"] == digest(a) and c["previous"] == digest(b)
    # By hand, so that a reader in another language finds the same.
    plain = json.dumps(b, sort_keys=True, separators=(",", ":")).encode()
    assert c["previous"] == hashlib.sha256(plain).hexdigest()
    assert json.loads((twice / "c" / RECORD).read_text())["seal"] == digest(c)
    # A copy in half precision is a model with other weights, and a record of its own.
    save(load(twice / "c"), twice / "half", half=True)
    assert chain(load(twice / "half").record)[:2] == [a, b]


def test_requests_of_every_kind_follow_each_other(twice: Path) -> None:
    third = forgotten(THIRD.split(four()), load(twice / "c")).record
    rows = torch.tensor([i for i in range(40) if i % 4 in (1, 2) or i in THIRD.index])
    assert third["request"]["any"] == [FIRST.to_dict(), SECOND.to_dict(), THIRD.to_dict()]
    assert third["request"]["forget"] == len(rows) == 23 and len(chain(third)) == 4
    assert before(third, four()) == together(FIRST, SECOND, THIRD)
    # Once more what was asked before: nothing is asked twice.
    assert forgotten(SECOND.split(four()), load(twice / "c")).record["request"] == load(twice / "c").record["request"]


def test_what_forgot_nothing_asks_for_nothing(twice: Path) -> None:
    plain = unlearn(
        load(twice / "a"), FIRST.split(four()), method=methods.standard(), settings=FEW, run=quiet(),
    )  # fmt: skip
    assert plain.record["request"]["rule"] == FIRST.rule and before(plain.record, four()) is None
    assert before({}, four()) is None


def test_other_images_cannot_tell_what_was_forgotten(twice: Path) -> None:
    other = Images.of(four().rows(), columns={"label": four().columns["kind"]}, name="others")
    split = ForgetRequest("label == 2").split(other)
    with pytest.raises(UserError, match=r"forget rule 'kind == 1', and .* images of others, not those of halves") as no:
        forgotten(split, load(twice / "b"))
    assert no.value.option == "earlier"
    ignored = forgotten(split, load(twice / "b"), earlier="ignore").record
    assert ignored["ignored"] == [FIRST.to_dict()] and ignored["request"]["rule"] == "label == 2"
    # It stays on the chain: who has the images again must still not bring it back.
    with pytest.raises(UserError, match="kind == 1"):
        before(ignored, other)
    # The same source with fewer images, and with another column.
    fewer, poorer = four().select(slice(20)), Images.of(four().rows(), name="halves")
    assert before(load(twice / "b").record, fewer) == FIRST
    with pytest.raises(UserError, match="halves has no column 'kind'"):
        before(load(twice / "b").record, poorer)
    numbered = forgotten(THIRD.split(four()), load(twice / "a")).record
    with pytest.raises(UserError, match="the list of 3 row numbers"):
        before(numbered, fewer)
    with pytest.raises(UserError, match="earlier must be forget or ignore"):
        forgotten(split, load(twice / "b"), earlier="perhaps")


@pytest.mark.parametrize(
    ("rule", "names", "said"),
    [
        ("label == 1", ("ant", "cat", "dog"), "label 1 was 'dog', and is 'cat' here; state it by name"),
        ("label > 0", ("ant", "cat", "dog"), "label 0 was 'cat', and is 'ant' here; state it by name"),
        ("label == 1", ("cat", "dog", "eel"), ""),
        ("label > 0", ("cat", "dog", "eel"), ""),
        ("label == 'dog'", ("ant", "cat", "dog"), ""),
        ("label == 3", ("cat", "dog", "eel", "fox"), "label 3 was '3', and is 'fox' here"),
    ],
)
def test_a_rule_by_number_means_the_classes_it_meant(rule: str, names: tuple[str, ...], said: str) -> None:
    old, new = (
        Images.of(four().rows(), columns={"label": torch.arange(40) % len(each)}, name="pets", label_names=each)
        for each in (("cat", "dog"), names)
    )
    record = {"request": {"rule": rule}, "method": {"name": "unseen"}, "data": old.to_dict()}
    assert before(record, old) == ForgetRequest(rule)
    model = tiny_model()
    model.record = record
    if said:
        with pytest.raises(UserError, match=said):
            before(record, new)
        with pytest.raises(UserError, match=said):
            meant(model, new, ForgetRequest(rule))
    else:
        assert before(record, new) == ForgetRequest(rule)
        assert meant(model, new, ForgetRequest(rule)) is new
    # Another request than the model's own, or none, means what it says.
    assert meant(model, new, ForgetRequest("label in [0, 1]")) is meant(model, new, None) is new
    del record["data"]["classes"]
    assert before(record, new) == ForgetRequest(rule)  # an older record
    with pytest.raises(UserError, match="classes cannot be read"):
        before({**record, "data": {**old.to_dict(), "classes": {"x": "cat"}}}, new)


def test_nothing_left_to_retain_is_refused(twice: Path) -> None:
    with pytest.raises(UserError, match="leave no image of halves to retain"):
        forgotten(ForgetRequest("kind != 1").split(four()), load(twice / "b"))


Change = Callable[[dict[str, Any]], object]
CHANGES: dict[str, tuple[Change, str]] = {
    "the rule": (lambda r: r["request"].update(rule="kind == 3"), "the record was changed after it was written"),
    "a setting": (lambda r: r["settings"].update(steps=9), "the record was changed after it was written"),
    "an earlier rule": (lambda r: r["earlier"][1]["request"].update(rule="kind == 3"), "record 2 of the chain"),
    "an earlier one taken away": (lambda r: r["earlier"].pop(1), "record 1 of the chain"),
    "the first taken away": (lambda r: r["earlier"].pop(0), "the record before the first of the chain"),
    "all taken away": (lambda r: r.pop("earlier"), "the record before the first of the chain"),
    "no list": (lambda r: r.update(earlier={}), "its earlier records are no list of tables"),
    "one put in": (lambda r: r["earlier"].insert(1, {"kind": "trained"}), "record 2 names the hash None"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_record_is_caught(name: str, twice: Path, tmp_path: Path) -> None:
    change, message = CHANGES[name]
    shutil.copytree(twice / "c", tmp_path / "c")
    record = json.loads((tmp_path / "c" / RECORD).read_text())
    change(record)
    (tmp_path / "c" / RECORD).write_text(json.dumps(record))
    with pytest.raises(UserError, match=message):
        load(tmp_path / "c")


def test_links_between_weights_are_compared(twice: Path, tmp_path: Path) -> None:
    """All hashes made anew around another parent: what is left is that its weights are not those the child names."""
    a, b, c = chain(load(twice / "c").record)
    b["weights_sha256"] = "0" * 64
    forged = sealed({**c, "earlier": [a, b], "previous": digest(b)})
    with pytest.raises(UserError, match="record 3 is not of a child of the model of record 2"):
        check(forged, tmp_path)
