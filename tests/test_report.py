"""results.json and report.html: exact schema, nothing half-written, nothing fetched, nothing unescaped."""

import json
import math
import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from msgm.metrics import quantities
from msgm.metrics.measured import Measured
from msgm.metrics.rates import wilson
from msgm.metrics.worth import Worth
from msgm.report.page import commit, write_html, write_json
from msgm.report.pictures import grid
from msgm.report.results import Result, Results
from msgm.report.tables import judged_sheets, results_sheet, screen_tables
from msgm.report.verdict import verdict
from msgm.status import diverged, refused

RESULTS = Path(__file__).parents[1] / "docs/results"


def results(model: str = "Standard") -> Results:
    retain, forget = quantities.NLL.values()
    full = [
        quantities.UR.share(196, 1000), quantities.JUNK.share(7, 1000), quantities.RETAINED.share(797, 1000),
        retain.of(3.1624, stderr=0.0118), forget.of(3.2951, stderr=0.0123), quantities.SECONDS.of(0.42),
    ]  # fmt: skip
    bare = [retain.of(3.2, stderr=math.nan), quantities.SECONDS.of(61.4)]
    rows = [
        Result(model=model, method="none", measured=by_name(*full), sampler="heun"),
        Result(model="Moderated", method="redirect", measured=by_name(*bare)),
    ]
    return Results(command="msgm demo", seed=1, commit="0" * 40, budget={"steps": 60}, rows=rows)


def by_name(*found: Measured) -> dict[str, Measured]:
    return {each.name: each for each in found}


def test_schema_is_exact() -> None:
    data = results().to_dict()
    rate = wilson(196, 1000)
    assert list(data) == ["command", "seed", "commit", "budget", "rows"]
    assert data["rows"][0] == {
        "model": "Standard",
        "method": "none",
        "unlearning_ratio": {"value": 0.196, "low": rate.low, "high": rate.high, "n": 1000},
        "junk": 0.007,
        "retained": 0.797,
        "nll": {
            "retain": {"bits_per_dim": 3.1624, "stderr": 0.0118},
            "forget": {"bits_per_dim": 3.2951, "stderr": 0.0123},
        },
        "seconds": 0.42,
        "sampler": "heun",
        "status": "finished",
    }
    # What was not measured is null under the same keys.
    bare = data["rows"][1]
    assert list(bare) == [key for key in data["rows"][0] if key != "sampler"]
    assert bare["unlearning_ratio"] == {"value": None, "low": None, "high": None, "n": None}
    assert bare["nll"]["forget"] == {"bits_per_dim": None, "stderr": None}


def test_json_round_trip_and_nan_is_null(tmp_path: Path) -> None:
    write_json(tmp_path / "new" / "results.json", results())
    text = (tmp_path / "new" / "results.json").read_text(encoding="utf-8")
    read = json.loads(text, parse_constant=pytest.fail)  # NaN and Infinity are not JSON
    back = Results.from_dict(read)
    assert back.to_dict() == read
    assert back.rows == tuple(results().rows)
    assert back.rows[0].get(quantities.UR) == quantities.UR.share(196, 1000)
    assert back.rows[1].measured[quantities.NLL["retain"].name].stderr is None
    assert back.rows[1].get(quantities.NLL["forget"]) is None and back.rows[1].value(quantities.UR) is None
    write_json(tmp_path / "a.json", {"a": [math.nan, -math.inf, 1.5, True, None], 2: Path("b")})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": [None, None, 1.5, True, None], "2": "b"}


def test_what_has_no_key_of_its_own_is_measured_by_name() -> None:
    shift = Measured(name="TV", value=0.2, low=0.1, high=0.3, n=90, unit="%", better="lower")
    lost = Measured(name="AUC", value=None, better="lower", reason="no images")
    row = Result(model="a", method="b", measured=by_name(shift, lost), status=diverged(7), seed=3, options={"c": 4})
    written = json.loads(json.dumps(row.to_dict()))
    assert written["measured"]["TV"] == {
        "name": "TV", "value": 0.2, "low": 0.1, "high": 0.3, "n": 90, "unit": "%", "better": "lower"
    }  # fmt: skip
    assert written["status"] == "diverged at step 7" and Result.from_dict(written) == row
    assert Result.from_dict({**written, "ended": refused("no").to_dict()}).said == "refused: no"


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_committed_results_are_read_and_written_alike(path: Path) -> None:
    stored = json.loads(path.read_text())
    if "evaluation" not in stored["budget"]:
        pytest.skip("of another experiment")
    same(Results.from_dict(stored).to_dict(), stored)


def same(made: Any, stored: Any) -> None:
    """What was stored is there again, to the last digit; new keys may stand beside it."""
    if isinstance(stored, dict):
        for key, value in stored.items():
            if value is not None and value != {}:
                same(made[key], value)
    elif isinstance(stored, list):
        assert len(made) == len(stored)
        for a, b in zip(made, stored, strict=True):
            same(a, b)
    else:
        assert made == stored


def test_a_crash_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "results.json"
    write_json(path, {"old": 1})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for name in ("replace", "fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, full)
            with pytest.raises(OSError, match="No space"):
                write_json(path, {"new": 2})
            with pytest.raises(OSError, match="No space"):
                write_html(path, results(), title="new")
        assert json.loads(path.read_text()) == {"old": 1}
        assert list(tmp_path.iterdir()) == [path]


def printed(found: Results, width: int) -> str:
    console = Console(width=width, record=True, file=open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    for table in screen_tables(found, width=width):
        console.print(table)
    return console.export_text()


def test_table_shows_the_numbers() -> None:
    text = printed(results("[red]Standard[/red] [/x]"), 160)
    for shown in ("19.6 [17.3, 22.2]", "0.7", "79.7", "3.162 ± 0.012", "3.295 ± 0.012", "0.4", "61", "–"):
        assert shown in text
    assert "[red]Standard[/red] [/x]" in text
    assert "nan" not in text


def test_no_number_is_broken_on_eighty_columns() -> None:
    found = results("a model whose name is longer than a third of the line")
    text = printed(found, 80)
    assert max(map(len, text.splitlines())) <= 80
    cells = {cell for row in results_sheet(found).rows for cell in row[1:]}
    assert all(cell in text for cell in cells) and text.count("Model") > 1


def test_what_the_judge_saw_is_a_table_of_its_own(tmp_path: Path) -> None:
    seen = Result(model="Standard", method="standard", judged={"cat": 3, "dog": 5, "junk": 0})
    unseen = Result(model="Other", method="unseen")
    found = Results(command="c", seed=0, commit=None, budget={}, rows=[seen, unseen])
    (sheet,) = judged_sheets(found)
    assert sheet.headings == ("Model", "Method", "cat", "dog", "junk")
    assert sheet.rows == [("Standard", "standard", "37.5", "62.5", "0.0")]
    write_html(tmp_path / "report.html", found, title="Seen")
    assert "<td>62.5</td>" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert judged_sheets(results()) == []


def test_html_is_self_contained_and_escaped(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    pixels = torch.arange(4, dtype=torch.uint8).reshape(1, 2, 2)
    write_html(
        tmp_path / "report.html",
        results(evil),
        title=f"Forgetting {evil}",
        grids=[(f"before {evil}", pixels), ("after", grid(pixels[None]))],
        curves={evil: [(0, 1.0, None), (1, 0.5, -2.0)], "a $ b_$": [(0, 2.0, None), (1, math.nan, None)]},
        records={evil: {"request": {"rule": evil, "counts": [1, 2]}, "parent": None, "history": [{"seed": 3}]}},
        notes=[f"one note {evil}"],
    )
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 6
    assert "://" not in page and "@import" not in page
    addresses = re.findall(r"""(?:src|href)\s*=\s*["']?([^"'\s>]+)""", page) + re.findall(r"url\(([^)]+)", page)
    assert len(addresses) > 2
    assert all(address.startswith(("data:", "#")) for address in addresses)
    for shown in ("before ", "after", "19.6 [17.3, 22.2]", "one note", "1, 2", "forget loss", "a $ b_$"):
        assert shown in page
    embedded = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(embedded) == 2


def test_a_page_answers_first(tmp_path: Path) -> None:
    found = results()
    ur = {n: quantities.UR.share(n, 1000) for n in (0, 170, 196)}
    judge = Worth(
        sha256="ab" * 32, trained_on="demo", accuracy=0.99, recall=wilson(99, 100), false_positives=wilson(2, 1000),
        called_junk=wilson(0, 1000), junk_recall={},
    )  # fmt: skip

    def against(n: int, judge: Worth | None = None) -> Results:
        child = Result(model="Child", method="unseen", measured=by_name(ur[n], quantities.JUNK.share(3, 1000)))
        return replace(found, rows=[found.rows[0], child], judge=judge)

    said = verdict(against(0))
    assert said == (
        "Child draws what was to be forgotten in 0.0 [0.0, 0.4] % of its samples, Standard in 19.6 [17.3, 22.2] %; "
        "0.3 % are junk, before 0.7 %. The intervals do not meet: it has become rarer."
    )
    assert "no evidence" in verdict(against(170)) and "by mistake" not in verdict(against(170, judge))
    assert verdict(against(0, judge)).endswith("as often, by mistake (0.2% [0.1%, 0.7%]).")
    assert verdict(replace(found, rows=found.rows[1:])) == "Nothing was measured."
    pixels = torch.zeros(1, 2, 2, dtype=torch.uint8)
    write_html(
        tmp_path / "r.html", against(0), title="T", grids=[("g", pixels)], records={"m": {"rule": "r"}}, notes=["n"]
    )
    page = (tmp_path / "r.html").read_text()
    order = [
        page.index(part) for part in (said, "<h2>Samples", "<h2>Results", "<h2>Notes", "<summary>settings", "budget")
    ]
    assert order == sorted(order)


def test_html_without_options(tmp_path: Path) -> None:
    write_html(tmp_path / "report.html", results(), title="Plain")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Moderated" in page and "<figure" not in page and "What was forgotten," not in page


def test_commit_is_that_of_the_tracked_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert commit(tmp_path) is None
    assert commit(tmp_path / "absent") is None
    git = [
        "git",
        "-C",
        str(tmp_path),
        "-c",
        "user.name=a",
        "-c",
        "user.email=a@b.c",
        "-c",
        "commit.gpgsign=false",
    ]
    try:
        subprocess.run([*git, "init", "-q"], check=True)
    except OSError:
        pytest.skip("needs git")
    source, installed = tmp_path / "src", tmp_path / ".venv"
    for folder in (source, installed):
        folder.mkdir()
        (folder / "a.py").write_text("")
    assert commit(source) is None  # nothing is committed yet
    subprocess.run([*git, "add", "src"], check=True)
    subprocess.run([*git, "commit", "-q", "--no-verify", "-m", "a"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert len(head) == 40
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "absent"))  # as within a hook of another repository
    assert commit(source) == head
    assert commit(installed) is None
    monkeypatch.setenv("PATH", "")
    assert commit(source) is None
