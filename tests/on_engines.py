"""Pieces of work by Ray and by submitit: the same rows as here, on several machines, and nothing goes on at the end.

Run by test_engines, in a process of its own.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from test_pool import alive, pieces
from test_sweep import LOOK, SHORT, numbers
from tiny import tiny_task

from msgm.choice import Choice
from msgm.errors import UserError
from msgm.experiments.core import engines
from msgm.experiments.core.engines import Engine, available
from msgm.experiments.core.jobs import Task
from msgm.experiments.core.pieces import Piece
from msgm.experiments.core.pool import run_all
from msgm.experiments.sweep.main import sweep
from msgm.forgetting import methods
from msgm.formats import load
from msgm.formats.tensors import weights_sha256
from msgm.progress import Tick

HERE = Path(__file__).parent
UNTIL = 240.0
"""Seconds to wait for what should happen at once; a busy machine is slow to start processes."""


@pytest.fixture(scope="module")
def importable() -> Iterator[None]:
    """Other processes find these tests."""
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), before])
    yield
    os.environ["PYTHONPATH"] = before


@pytest.fixture(scope="module")
def two_nodes(importable: None) -> Iterator[None]:
    """A Ray cluster of two nodes with a processor each, on loopback."""
    pytest.importorskip("ray", reason="the extra ray is not installed")
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # A busy machine is slow to start Ray's processes and to answer for them: no node is given up for that.
    patient = {"agent_register_timeout_ms": 300_000, "health_check_failure_threshold": 100}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "_system_config": patient})
    try:
        cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)
        os.environ["RAY_ADDRESS"] = cluster.address
        yield
    finally:
        os.environ.pop("RAY_ADDRESS", None)
        cluster.shutdown()


@pytest.fixture
def submitit_here(importable: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """submitit starts processes of this machine in the place of SLURM's jobs."""
    pytest.importorskip("submitit", reason="the extra slurm is not installed")
    monkeypatch.setattr(engines, "CLUSTER", "local")


def silent(amount: float, note: str = "") -> None:
    pass


def met(folder: Path, number: int, tick: Tick) -> dict[str, Any]:
    """Waits for the other one; where it was done."""
    import ray

    (folder / f"here-{number}").touch()
    until = time.monotonic() + UNTIL
    while not (folder / f"here-{1 - number}").exists() and time.monotonic() < until:
        time.sleep(0.05)
    return {"node": ray.get_runtime_context().get_node_id(), "at": os.getcwd()}


def test_pieces_are_on_two_nodes_at_once(two_nodes: None, tmp_path: Path) -> None:
    both = [Piece(key=str(k), folder=tmp_path / str(k), identity={}, run=partial(met, tmp_path, k)) for k in range(2)]
    run_all(both, workers=2, engine="ray", tick=silent)
    assert len({piece.result["node"] for piece in both}) == 2
    assert {piece.result["at"] for piece in both} == {os.getcwd()}


def told_of(engine: Engine, folder: Path) -> list[float]:
    told: list[float] = []
    done = pieces(folder, 1, 2, 3)
    run_all(done, workers=2, engine=engine, tick=lambda amount, note="": told.append(amount))
    assert [piece.result for piece in done] == [{"twice": 2}, {"twice": 4}, {"twice": 6}]
    with pytest.raises(UserError, match="negative"):
        run_all(pieces(folder, 4, -1), workers=2, engine=engine, tick=silent)
    return told


def dies(tick: Tick) -> dict[str, int]:
    os._exit(9)


def test_ray_does_all_and_passes_errors_on(two_nodes: None, tmp_path: Path) -> None:
    assert told_of("ray", tmp_path) == [1, 1, 1]
    deadly = [Piece(key="a", folder=tmp_path / "a", identity={}, run=dies)]
    with pytest.raises(UserError, match="ended unexpectedly"):
        run_all(deadly, workers=2, engine="ray", tick=silent)


def test_jobs_do_all_and_pass_errors_on(submitit_here: None, tmp_path: Path) -> None:
    assert told_of("slurm", tmp_path) == [1, 1, 1]
    assert not (tmp_path / ".jobs").exists()
    deadly = [Piece(key="a", folder=tmp_path / "a", identity={}, run=dies)]
    with pytest.raises(UserError, match="ended unexpectedly"):
        run_all(deadly, workers=2, engine="slurm", tick=silent)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return tiny_task(tmp_path_factory.mktemp("task"), LOOK)


def swept(task: Task, out: Path, engine: Engine, resume: bool = False) -> tuple[dict[str, Any], list[str]]:
    """The numbers of a sweep, and the hashes of its models."""
    asked = {Choice("unseen"): methods.unseen(), Choice("deflect"): methods.deflect()}
    sweep(task, asked, settings=SHORT, seeds=1, out=out, workers=1, engine=engine, resume=resume, progress=False)
    models = [load(out / "runs" / choice.name / "seed-3") for choice in asked]
    found = {key: value for key, value in numbers(out).items() if key != "commit"}
    return found, [weights_sha256(model.network) for model in models]


@pytest.fixture(scope="module")
def here(task: Task, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], list[str]]:
    return swept(task, tmp_path_factory.mktemp("here") / "s", "local")


def test_a_sweep_by_ray_is_one_by_local(
    two_nodes: None, task: Task, here: tuple[dict[str, Any], list[str]], tmp_path: Path
) -> None:
    assert swept(task, tmp_path / "s", "ray") == here
    # What one engine began another goes on with.
    row = tmp_path / "s" / "runs" / "deflect" / "seed-3" / "row.json"
    row.unlink()
    assert swept(task, tmp_path / "s", "local", resume=True) == here


def test_a_sweep_by_jobs_is_one_by_local(
    submitit_here: None, task: Task, here: tuple[dict[str, Any], list[str]], tmp_path: Path
) -> None:
    assert swept(task, tmp_path / "s", "slurm") == here


SLOW = """
import os, signal, sys, time
from functools import partial
from pathlib import Path
from msgm.cli.main import _interrupt
from msgm.experiments.core import engines
from msgm.experiments.core.pieces import Piece
from msgm.experiments.core.pool import run_all

def work(folder, item, tick):
    (folder / f"begun-{item}").write_text(str(os.getpid()))
    try:
        for _ in range(20_000):  # Ray interrupts between two of them, as between two steps of a training
            time.sleep(0.05)
    except KeyboardInterrupt:
        (folder / f"saved-{item}").touch()
        raise
    (folder / f"done-{item}").touch()
    return {}

if __name__ == "__main__":
    from slow_main import work
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    out, engine = Path(sys.argv[1]), sys.argv[2]
    engines.CLUSTER = "local"
    every = [Piece(key=str(k), folder=out / "pieces" / str(k), identity={}, run=partial(work, out, k)) for k in (0, 1)]
    run_all(every, workers=2, engine=engine, tick=lambda *_, **__: None)
"""


@pytest.mark.parametrize(
    ("engine", "number"),
    [
        ("ray", signal.SIGTERM),
        ("slurm", signal.SIGTERM),
        pytest.param("ray", signal.SIGINT, marks=pytest.mark.slow),
        pytest.param("ray", signal.SIGKILL, marks=pytest.mark.slow),
    ],
)
def test_a_signal_ends_what_is_elsewhere(
    engine: str, number: int, two_nodes: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit", reason="the extra slurm is not installed")
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "slow_main.py").write_text(SLOW)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]]))
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "slow_main.py"), str(out), engine], stderr=subprocess.PIPE, text=True
    )
    try:
        until = time.monotonic() + UNTIL
        while len(list(out.glob("begun-*"))) < 2 and time.monotonic() < until and process.poll() is None:
            time.sleep(0.05)
        workers = [int(path.read_text()) for path in out.glob("begun-*")]
        process.send_signal(number)
        said = process.communicate(timeout=UNTIL)[1]
    finally:
        process.kill()
    assert len(workers) == 2, said
    until = time.monotonic() + 95  # far less than what they were about to do
    while any(map(at_work, workers, [out] * 2)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(at_work, workers, [out] * 2)) and not list(out.glob("done-*"))
    if number != signal.SIGKILL:
        assert "Interrupted: interrupted; what is finished is kept" in said
        assert len(list(out.glob("saved-*"))) == 2
    assert not (out / "pieces" / ".jobs").exists()


def at_work(pid: int, out: Path) -> bool:
    """Whether the process is there, and not as a worker of Ray that waits for other work."""
    return alive(pid) and not list(out.glob("saved-*"))


def test_what_an_engine_needs_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    available("local")
    for engine in ("ray", "slurm"):
        with pytest.raises(UserError, match=rf"pip install 'msgm\[{engine}\]'"):
            available(engine)  # type: ignore[arg-type]
    monkeypatch.setattr(engines, "find_spec", lambda name: name)
    with pytest.raises(UserError, match="sbatch"):
        available("slurm")
