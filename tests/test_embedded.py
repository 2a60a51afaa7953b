"""What ships in the package: small, made by a command on record, and equal to its record."""

from pathlib import Path

import torch

import msgm
from msgm.data import Source
from msgm.formats.native import embedded
from msgm.formats.tensors import weights_sha256
from msgm.metrics.judge import Judge
from msgm.model.space import Space


def test_all_of_it_fits_in_twelve_megabytes() -> None:
    package = Path(msgm.__file__).parent
    size = sum(f.stat().st_size for f in package.rglob("*") if f.is_file() and "__pycache__" not in f.parts)
    assert size < 12e6


def test_the_model_is_what_its_record_says() -> None:
    model = msgm.load("demo")
    record = model.record
    assert record["kind"] == "trained" and record["status"]["kind"] == "finished"
    assert record["command"].startswith("msgm train ") and record["seed"] == record["settings"]["seed"]
    assert record["data"] == {"name": "demo", "sha256": Source("demo").open().digest, "images": 8000}
    assert record["weights_sha256"] == weights_sha256(model.network)


def test_the_model_denoises_real_test_digits() -> None:
    # At sigma = 0.3 a denoiser of digits leaves far less than the noise; the identity would leave 0.09.
    model, x0 = msgm.load("demo"), Space().to_model(Source("demo").open("test").rows(slice(32)))
    t = model.sde.time(torch.tensor(0.3).log())
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        error = (model.denoise(model.sde.marginal(x0, t, eps), t) - x0).square().mean()
    assert error < 0.02


def test_the_judge_is_what_its_record_says() -> None:
    judge, test = Judge.load(embedded("judge")), Source("demo").open("test")
    assert judge.record["command"].startswith("msgm train-judge ")
    predicted = judge.predict(test.rows())
    table = torch.zeros(11, 11, dtype=torch.int64)
    for truth, verdict in zip(test.labels.tolist(), predicted.tolist(), strict=True):
        table[truth, verdict] += 1  # junk is -1, the last column
    # The stored confusion was measured on these very images; a few may flip with another CPU's rounding.
    assert (table[:10] - judge.confusion[:10]).abs().sum() <= 8
    assert judge.accuracy > 0.98 and judge.real_called_junk < 0.01
    assert min(judge.junk_recall.values()) > 0.97
