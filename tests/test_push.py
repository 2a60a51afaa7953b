"""A model for the hub: its card says what the record and the audit say, and nothing leaves before it is asked to."""

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import ModelCard
from huggingface_hub.errors import OfflineModeIsEnabled
from tiny import quiet, tiny_model, tiny_split

from msgm.cli.main import main
from msgm.data import IndexRequest
from msgm.forgetting import methods
from msgm.formats import load, save
from msgm.formats.ledger import digest
from msgm.formats.native import RECORD
from msgm.training.loop import unlearn
from msgm.training.settings import UnlearnSettings

NUMBERS = {
    "UR": {"name": "UR", "value": 0.02, "low": 0.01, "high": 0.05, "n": 150, "hits": 3, "unit": "%", "better": "lower"},
    "Fréchet": {"name": "Fréchet", "value": 9.5, "n": 150, "better": "lower"},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that was asked twice, and an audit of it."""
    root = tmp_path_factory.mktemp("push")
    save(tiny_model(), root / "parent")
    split, few = tiny_split(), UnlearnSettings(steps=2, batch=4)
    once = unlearn(
        load(root / "parent"), split, method=methods.orthogonal(), settings=few,
        run=quiet(command="msgm unlearn somebody/parent --forget 'label == 1' --out m"),
    )  # fmt: skip
    unlearn(once, IndexRequest((0,)).split(split.whole), method=methods.unseen(), settings=few, run=quiet(root / "m"))
    sha256 = load(root / "m").record["weights_sha256"]
    audit = {
        "weights_sha256": {"model": sha256}, "verdict": "1 of 2 attacks tell it.", "judge": {"text": "Judge ab: good."},
        "attacks": {"ask": {"numbers": {"model": NUMBERS, "parent": NUMBERS}}},
    }  # fmt: skip
    (root / "audit.json").write_text(json.dumps(audit))
    return root


def test_the_card_says_what_the_record_and_the_audit_say(place: Path, tmp_path: Path, capsys) -> None:
    words = [
        "push",
        str(place / "m"),
        "--licence",
        "apache-2.0",
        "--to",
        "me/safe",
        "--audit",
        str(place / "audit.json"),
    ]
    main([*words, "--dry-run", "--out", str(tmp_path / "o")])
    assert "nothing was uploaded" in capsys.readouterr().out
    card = ModelCard.load(tmp_path / "o" / "README.md")
    assert (card.data.license, card.data.base_model, card.data.library_name) == (
        "apache-2.0",
        "somebody/parent",
        "diffusers",
    )
    entries = {entry.metric_name: entry for entry in card.data.eval_results}
    assert entries["UR"].metric_value == 0.02 and entries["UR"].dataset_name == "halves"
    assert entries["UR"].metric_config == "95 % interval 0.01 to 0.05, 150 samples"
    assert entries["Fréchet"].metric_value == 9.5
    record = load(place / "m").record
    for said in (
        "It was made to forget `label == 1; row 0`.",
        "1. unlearned by `orthogonal`, 2 steps of 4: forget `label == 1` (20 images, 20 retained)",
        "1. unlearned by `unseen`, 2 steps of 4: forget `label == 1`; forget `row 0` (21 images, 19 retained)",
        "1 of 2 attacks tell it.", "Judge ab: good.", "2.0 [1.0, 5.0]", digest(record),
    ):  # fmt: skip
        assert said in card.text, said
    assert load(tmp_path / "o").record == record


def test_without_an_audit_nothing_is_claimed(place: Path, tmp_path: Path) -> None:
    main(
        ["push", str(place / "m"), "--licence", "mit", "--dry-run", "--out", str(tmp_path / "o"), "--base-model", "a/b"]
    )
    card = ModelCard.load(tmp_path / "o" / "README.md")
    assert card.data.eval_results is None and card.data.base_model == "a/b"
    assert "nothing is claimed of what this model still makes" in card.text and card.text.strip().startswith("# m")


def test_it_is_uploaded_whole(place: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    seen: dict[str, Any] = {}

    class Hub:
        def create_repo(self, name: str, *, private: bool, exist_ok: bool) -> None:
            seen.update(name=name, private=private)

        def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> str:
            seen.update(files=sorted(p.name for p in Path(folder_path).iterdir()), to=repo_id)
            return "https://hub/me/safe"

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    main(["push", str(place / "m"), "--licence", "mit", "--to", "me/safe", "--private"])
    assert (seen["name"], seen["to"], seen["private"]) == ("me/safe", "me/safe", True)
    assert {"README.md", RECORD, "score.json", "unet"} <= set(seen["files"])
    assert "uploaded https://hub/me/safe" in capsys.readouterr().out


def test_what_cannot_be_pushed_is_refused(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def said(*words: str) -> str:
        with pytest.raises(SystemExit) as end:
            main(["push", str(place / "m"), *words])
        assert end.value.code == 2
        return capsys.readouterr().err

    assert "licence" in said("--to", "me/safe")
    assert "say where on the hub: --to OWNER/NAME" in said("--licence", "mit")
    assert "go together" in said("--licence", "mit", "--dry-run")
    audit = json.loads((place / "audit.json").read_text())
    audit["weights_sha256"]["model"] = "0" * 64
    (tmp_path / "other.json").write_text(json.dumps(audit))
    words = ("--licence", "mit", "--dry-run", "--out", str(tmp_path / "o"))
    assert "is an audit of other weights" in said(*words, "--audit", str(tmp_path / "other.json"))
    assert not (tmp_path / "o").exists()

    def offline(*args: object, **options: object) -> None:
        raise OfflineModeIsEnabled("offline")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", offline)
    assert "the hub did not take me/safe: offline" in said("--licence", "mit", "--to", "me/safe")
