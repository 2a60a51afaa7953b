"""The demo: what it leaves behind, and that it does not report new settings over old models."""

import json
from pathlib import Path

import pytest

from msgm.choice import Choice
from msgm.errors import UserError
from msgm.experiments.core import jobs
from msgm.experiments.core.evaluate import EvaluateSettings
from msgm.experiments.demo.main import demo, models
from msgm.training.settings import UnlearnSettings

SHORT = UnlearnSettings(steps=1, batch=2, warmup=1, save_every=1)
LOOK = EvaluateSettings(n=4, sampler=Choice.of("dpm++", steps=2), nll_images=0)


def test_the_demo_is_resumed_with_its_own_settings_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "demo"
    made: list[str] = []
    real = jobs.unlearn

    def unlearn(*given, **options):  # type: ignore[no-untyped-def]
        made.append(options["method"].name)
        if len(made) == 3:
            raise KeyboardInterrupt
        return real(*given, **options)

    monkeypatch.setattr(jobs, "unlearn", unlearn)
    options = {"unlearning": SHORT, "evaluation": LOOK, "command": "msgm demo"}
    with pytest.raises(KeyboardInterrupt, match="what is finished is kept"):
        demo(out, **options)
    with pytest.raises(UserError, match=r"settings.steps was 1, is 2"):
        demo(out, **{**options, "unlearning": UnlearnSettings(steps=2, batch=2, warmup=1, save_every=1)}, resume=True)
    with pytest.raises(UserError, match=r"evaluation.n was 4, is 5"):
        demo(
            out,
            **{**options, "evaluation": EvaluateSettings(n=5, sampler=Choice.of("dpm++", steps=2), nll_images=0)},
            resume=True,
        )
    with pytest.raises(UserError, match="already exists"):
        demo(out, **options)
    before = (out / "models/unseen/row.json").stat().st_mtime_ns
    results = demo(out, **options, resume=True)
    assert (out / "models/unseen/row.json").stat().st_mtime_ns == before and len(made) == 4
    assert [row.model for row in results.rows] == ["Standard", *models()]
    stored = json.loads((out / "results.json").read_text())
    assert stored["judge"]["recall"]["value"] > 0.9
    # The parent was not trained: it has no seconds, and no distance from itself.
    assert stored["rows"][0]["seconds"] is None and "TV parent" not in stored["rows"][0]["measured"]
    assert all(row["seconds"] is not None and "TV parent" in row["measured"] for row in stored["rows"][1:])
    for name in ("standard", *(name.lower() for name in models())):
        assert len(list((out / "samples" / name).glob("*.png"))) == 4
    page = (out / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 4 and stored["judge"]["sha256"][:12] in page
