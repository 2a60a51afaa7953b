"""Folders to write into: nothing of another's is touched, two never write at once, what was killed leaves nothing."""

import importlib
import json
import pkgutil
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import QUICK, quiet, tiny_files, tiny_model, tiny_split

from msgm import cli
from msgm.cli.main import main
from msgm.data import Source
from msgm.errors import UserError
from msgm.folders import IDENTITY, LOCK, Making, differences, lock, opened, reserved, room
from msgm.formats import load, save
from msgm.formats.native import RECORD
from msgm.model import memory
from msgm.model.memory import held
from msgm.storage import place
from msgm.training.loop import unlearn
from msgm.training.runs import LOG, STATE, RunSpec, completed
from msgm.training.runtime import Runtime
from msgm.training.settings import UnlearnSettings

THING = Making(kind="thing", identity={"settings": {"a": 1, "b": None}, "c": [1, 2]}, names=("made", "kept.json"))
SHORT = UnlearnSettings(steps=2, batch=4)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_new_folder_is_made_marked_and_let_go(tmp_path: Path) -> None:
    with opened(tmp_path / "a" / "b", THING, resume=True) as folder:
        assert not folder.resumed and folder.path == tmp_path / "a" / "b"
        assert set(contents(folder.path)) == {IDENTITY, LOCK}
    assert set(contents(tmp_path)) == {f"a/b/{IDENTITY}"}
    with opened(tmp_path / "a" / "b", THING, resume=True) as folder:
        assert folder.resumed
        folder.end({"status": "finished"})
    with pytest.raises(UserError, match="is finished"), opened(tmp_path / "a" / "b", THING, resume=True):
        pass
    with pytest.raises(UserError, match="already exists"), opened(tmp_path / "a" / "b", THING):
        pass
    with opened(tmp_path / "a" / "b", THING, overwrite=True) as folder:
        assert not folder.resumed


@pytest.mark.parametrize(
    "ways", [{}, {"resume": True}, {"overwrite": True}, {"resume": True, "overwrite": True}], ids=str
)
@pytest.mark.parametrize(
    "found", [{"made": b"x"}, {"cat.png": b"x"}, {IDENTITY: b'{"name": "mine"}'}, {IDENTITY: b"no JSON"}], ids=str
)
def test_what_is_anothers_is_never_touched(found: dict[str, bytes], ways: dict[str, bool], tmp_path: Path) -> None:
    for name, content in found.items():
        (tmp_path / name).write_bytes(content)
    if "cat.png" in found and ways.get("overwrite"):  # nothing is in the way
        with opened(tmp_path, THING, **ways) as folder:
            assert not folder.resumed
    else:
        with pytest.raises(UserError), opened(tmp_path, THING, **ways):
            pass
        assert contents(tmp_path) == found
    if "cat.png" in found:
        assert (tmp_path / "cat.png").read_bytes() == b"x"


def test_another_kind_and_another_identity_are_refused(tmp_path: Path) -> None:
    with opened(tmp_path / "a", THING):
        pass
    before = contents(tmp_path)
    other = Making(kind="judge", identity=THING.identity, names=())
    for ways in ({"resume": True}, {"overwrite": True}):
        with (
            pytest.raises(UserError, match="holds a thing of msgm, not a judge"),
            opened(tmp_path / "a", other, **ways),
        ):
            pass
    changed = Making(kind="thing", identity={"settings": {"a": 2, "d": "x" * 50}, "c": [1, 3]}, names=())
    said = r"settings\.a was 1, is 2; c was \[1, 2\], is \[1, 3\]; settings\.d was not there, is x{24}…\."
    with pytest.raises(UserError, match=said), opened(tmp_path / "a", changed, resume=True):
        pass
    assert contents(tmp_path) == before
    assert differences({"a": {"b": 1.0}}, {"a": {"b": 1.0}}) == {}
    names = ["unseen", "siss", "retrack", "orthogonal"]
    found = differences({"names": [*names, "deflect"], "judge": "a"}, {"names": [*names, "moderate"], "judge": None})
    assert found == {"names": "was …onal', 'deflect'], is …onal', 'moderate']", "judge": "was a, is not there"}


def test_places_where_nothing_can_be_written(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    monkeypatch.chdir(tmp_path)
    for out in ("", "  ", ".", "/", str(tmp_path), "~".replace("~", str(Path.home()))):
        with pytest.raises(UserError, match="no folder of its own"):
            place(out)
    for out, said in (
        ("file", "is a file"),
        ("file/sub/x", "lies inside .*file"),
        ("a\udcff", "UTF-8"),
        ("a\0b", "no path"),
    ):
        with pytest.raises(UserError, match=said):
            place(out)
    with pytest.raises(UserError):
        place("loop/x")
    assert place("new/one") == Path("new/one")


HOLD = """
import sys, time
sys.path[:0] = {path!r}
from pathlib import Path
from msgm.folders import Making, opened
with opened(sys.argv[1], Making(kind="thing", identity={{}}, names=("made",))):
    Path(sys.argv[1], ".made.{{}}.tmp".format(1234)).write_bytes(b"half")
    print("held", flush=True)
    time.sleep(600)
"""


def test_one_writes_at_a_time_and_what_a_killed_one_left_is_cleared(tmp_path: Path) -> None:
    making = Making(kind="thing", identity={}, names=("made",))
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD.format(path=sys.path), str(tmp_path / "a")], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None and child.stdout.readline() == "held\n"
    try:
        for ways in ({"resume": True}, {"overwrite": True}):
            with pytest.raises(UserError, match="another process is writing"), opened(tmp_path / "a", making, **ways):
                pass
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    (tmp_path / "a" / ".mine.1.tmp").touch()
    with opened(tmp_path / "a", making, resume=True) as folder:
        assert folder.resumed
    assert set(contents(tmp_path / "a")) == {IDENTITY, ".mine.1.tmp"}


def test_room_on_the_disk_is_asked_for_first(tmp_path: Path) -> None:
    big = Making(kind="thing", identity={}, names=(), size=10**18)
    with pytest.raises(UserError, match=r"MiB, and \d+ are free"), opened(tmp_path / "a", big):
        pass
    assert not (tmp_path / "a").exists()
    room(tmp_path / "not" / "yet", 1)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("files")
    tiny_files(root)
    save(tiny_model(seed=1), root / "other")
    return root


@pytest.mark.parametrize(
    "words",
    [
        "demo",
        "sweep {model} --forget {rule} --judge {judge} --method unseen {data}",
        "unlearn {model} --forget {rule} --judge {judge} --seeds 2 --steps 20 --batch 8 {data}",
        "unlearn {model} --forget {rule} --steps 20 --batch 8 {data}",
        "evaluate {model} --forget {rule} --judge {judge} {data}",
        "audit {other} --against {model} --forget {rule} --judge {judge} {data}",
        "reproduce toy",
        "reproduce table7 {data}",
        "nll {model} {data}",
        "train-judge {data}",
        "sample {model}",
        "convert {model}",
    ],
)
def test_every_command_asks_for_room_before_it_writes(
    words: str, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100))
    names = {name: str(here / name) for name in ("model", "other", "judge")}
    data = f"--data {here / 'data'}"
    given = [w.format(rule="label == 1") for w in words.format(rule="{rule}", data=data, **names).split()]
    with pytest.raises(SystemExit) as ended:
        main([*given, "--out", str(tmp_path / "out" / "x")])
    assert ended.value.code == 2
    assert re.search(r"needs about \d+ MiB, and 0 are free", capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []


def test_what_a_run_was_killed_before_is_done_by_the_next(tmp_path: Path) -> None:
    out = tmp_path / "m"
    assert not completed(out)
    unlearn(tiny_model(), tiny_split(), method=QUICK, settings=SHORT, run=quiet(out))
    ended = (out / IDENTITY).read_bytes()
    note = {key: value for key, value in json.loads(ended).items() if key != "ended"}
    (out / IDENTITY).write_text(json.dumps(note))  # killed after the model was in its place
    assert completed(out) and (out / IDENTITY).read_bytes() == ended
    (out / STATE).write_bytes(b"")  # killed before its state was removed
    assert completed(out) and not (out / STATE).exists()
    (out / LOCK).touch()  # of a process that was killed before it could take it away
    assert completed(out) and not (out / LOCK).exists()
    with lock(out):
        assert completed(out) and (out / LOCK).exists()
    (out / STATE).write_bytes(b"")
    (out / IDENTITY).write_text(json.dumps(note))  # the model may be of another run, which this one was to replace
    assert not completed(out) and (out / STATE).exists()


def test_what_cannot_fit_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, split = tiny_model(), tiny_split()
    one = held(model)
    assert one > 4 * 8 * 8
    monkeypatch.setattr(memory, "free", lambda device: 8.0 * sum(p.nbytes for p in model.parameters()) + 7.5 * one)
    settings = UnlearnSettings(steps=1, batch=4, warmup=1)
    with pytest.raises(UserError, match=r"8 images a step, and .* are free; take a smaller batch"):
        unlearn(model, split, settings=settings, run=RunSpec(folder=tmp_path / "out", device="cpu"))
    assert list(tmp_path.iterdir()) == []
    unlearn(model, split, settings=replace(settings, batch=3), run=RunSpec(device="cpu", progress=False))


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("train-judge --data demo --data.size 3", "4 to 1024 pixels a side, got 3x3"),
        ("train-judge --data demo --data.size 2000", "4 to 1024 pixels a side, got 2000x2000"),
        ("train --data demo --data.size 1000", "no network preset is for 1000x1000 images, but for 16, 28, 32, 64"),
        ("unlearn demo --forget label==3 --data.size 1000", "resize them (size 28)"),
        ("evaluate demo --forget label==3 --data.size 3", "resize them (size 28)"),
    ],
)
def test_sizes_that_nothing_takes_are_named_before_images_are_read(
    words: str, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Source, "open", lambda *_: pytest.fail("images were read"))
    with pytest.raises(SystemExit) as ended:
        main([*words.split(), "--out", str(tmp_path / "out")])
    said = capsys.readouterr().err
    assert ended.value.code == 2 and named in said and "--data.size" in said
    assert list(tmp_path.iterdir()) == []


def test_the_parents_own_folder_is_spared(tmp_path: Path) -> None:
    save(tiny_model(), tmp_path / "m")
    before = contents(tmp_path)
    for ways in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(UserError, match="holds the model that the run starts from"):
            unlearn(load(tmp_path / "m"), tiny_split(), method=QUICK, settings=SHORT, run=quiet(tmp_path / "m", **ways))
    assert contents(tmp_path) == before


def test_a_foreign_pipeline_is_not_replaced(tmp_path: Path) -> None:
    """Neither with --overwrite nor with --resume; beside foreign files of other names a run does not mind them."""
    (tmp_path / "m" / "scheduler").mkdir(parents=True)
    (tmp_path / "m" / "scheduler" / "scheduler_config.json").write_text("{}")
    (tmp_path / "m" / "model_index.json").write_text("{}")
    before = contents(tmp_path)
    for ways in ({"resume": True}, {"overwrite": True}, {"resume": True, "overwrite": True}):
        with pytest.raises(UserError, match=r"model_index\.json, and no record of a run"):
            unlearn(tiny_model(), tiny_split(), method=QUICK, settings=SHORT, run=quiet(tmp_path / "m", **ways))
    assert contents(tmp_path) == before
    (tmp_path / "n").mkdir()
    (tmp_path / "n" / "notes.txt").write_text("mine")
    unlearn(tiny_model(), tiny_split(), method=QUICK, settings=SHORT, run=quiet(tmp_path / "n", overwrite=True))
    assert (tmp_path / "n" / "notes.txt").read_text() == "mine" and (tmp_path / "n" / RECORD).exists()


def test_a_killed_overwrite_goes_on_as_the_new_run(tmp_path: Path) -> None:
    """The old model stays until the new one is there, and is not taken for it."""
    unlearn(tiny_model(), tiny_split(), method=QUICK, settings=SHORT, run=quiet(tmp_path / "m"))
    old = load(tmp_path / "m").record["weights_sha256"]
    longer = UnlearnSettings(steps=3, batch=4)

    class Stop:
        def __call__(self, step: int, average: object) -> bool:
            if step == 1:
                raise OSError("power cut")
            return False

        def ship(self, average: object) -> dict[str, str]:
            return {}

    with pytest.raises(OSError, match="power"):
        over = quiet(tmp_path / "m", overwrite=True)
        unlearn(tiny_model(), tiny_split(), method=QUICK, settings=longer, run=over, watch=Stop())
    assert load(tmp_path / "m").record["weights_sha256"] == old
    # The old run's state, had it been left there, is not that of the new one.
    unlearn(tiny_model(), tiny_split(), method=QUICK, settings=longer, run=quiet(tmp_path / "m", resume=True))
    record = load(tmp_path / "m").record
    assert record["settings"]["steps"] == 3 and record["weights_sha256"] != old
    assert not (tmp_path / "m" / STATE).exists() and len((tmp_path / "m" / LOG).read_text().splitlines()) == 3


def test_what_a_run_computes_on(monkeypatch) -> None:
    for precision in ("fp16", "fp8", ""):
        with pytest.raises(UserError, match="no precision"):
            Runtime.choose("cpu", precision=precision)
    with pytest.raises(UserError, match="compile"):
        Runtime.choose("cpu", compile=True)
    for device in ("meta", "abacus", ""):
        with pytest.raises(UserError, match="no device"):
            Runtime.choose(device)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="WORLD_SIZE is 2"):
        unlearn(tiny_model(), tiny_split(), method=QUICK, settings=SHORT, run=quiet())


def test_bfloat16_is_for_the_network_alone(tmp_path: Path) -> None:
    """Its weights stay float32, its losses near those of float32; a model that ships is read in float32."""
    runs = {
        precision: unlearn(
            tiny_model(dropout=0.0),
            tiny_split(),
            method=QUICK,
            settings=SHORT,
            run=quiet(tmp_path / precision, precision=precision),
        )
        for precision in ("fp32", "bf16")
    }
    assert runs["bf16"].precision == "fp32" and runs["bf16"].record["runtime"]["precision"] == "bf16"
    assert {p.dtype for p in runs["bf16"].parameters()} == {torch.float32}
    weights = [torch.cat([p.detach().flatten() for p in model.parameters()]) for model in runs.values()]
    assert not torch.equal(*weights)
    torch.testing.assert_close(*weights, rtol=0, atol=5e-4)
    model, x, t = tiny_model(dropout=0.0).eval(), torch.randn(3, 1, 8, 8), torch.tensor([0.2, 0.5, 0.9])
    with torch.no_grad():
        exact = model.noise(x, t)
        model.precision = "bf16"
        rough = model.noise(x, t)
    assert rough.dtype == torch.float32 and not torch.equal(rough, exact)
    torch.testing.assert_close(rough, exact, rtol=0.05, atol=0.05)


WRITERS = {
    "train": [],
    "train-judge": [],
    "unlearn": ["demo", "--forget", "label == 3"],
    "sample": ["demo", "-n", "1", "--sampler.steps", "2"],
    "nll": ["demo"],
    "inpaint": ["demo", "--mask", "band"],
    "reconstruct": ["demo"],
    "evaluate": ["demo", "--forget", "label == 3"],
    "audit": ["demo", "--against", "demo", "--forget", "label == 3"],
    "sweep": ["demo", "--forget", "label == 3"],
    "reproduce": ["toy"],
    "convert": ["demo"],
    "demo": [],
}


@pytest.mark.parametrize("command", WRITERS)
def test_every_command_refuses_its_place_before_anything_is_read(
    command: str, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever cannot be written: inside a file, a foreign folder, no permission, a link to nothing, another's lock."""

    def never(*given: object, **named: object) -> None:
        raise AssertionError("this is work")

    works = ("cli.reading.read_model", "data.source.find", "experiments.core.jobs.load", "experiments.toy.main.plan")
    for module in pkgutil.iter_modules(cli.__path__):  # which must not keep what stands in for the work here
        importlib.import_module(f"msgm.cli.{module.name}")
    for work in works:
        monkeypatch.setattr(f"msgm.{work}", never)
    (tmp_path / "file").touch()
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "run.json").write_text('{"mine": true}')
    before = contents(tmp_path)
    for out in ("file/sub", "file", "gone", "mine", "\x7f", "a" * 300, ""):
        if command == "nll" and out == "":
            continue
        with pytest.raises(SystemExit) as stop:
            main([command, *WRITERS[command], "--out", str(tmp_path / out) if out else ""])
        said = capsys.readouterr().err
        assert stop.value.code == 2 and said.count("\n") == 1 and len(said) <= 307, said
    assert contents(tmp_path) == before


def test_what_was_begun_by_a_command_without_resume_is_begun_again(tmp_path: Path) -> None:
    once = replace(THING, anew=True)
    with pytest.raises(KeyboardInterrupt), opened(tmp_path, once) as place:
        (tmp_path / "made").touch()
        raise KeyboardInterrupt
    with opened(tmp_path, once) as place:
        assert not place.resumed
        place.clear()
        assert not (tmp_path / "made").exists()
        place.end()
    with pytest.raises(UserError, match="already exists"), opened(tmp_path, once):
        pass


def test_a_refusal_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no"), opened(tmp_path / "a" / "b", THING):
        raise UserError("no")
    assert list(tmp_path.iterdir()) == []
    with opened(tmp_path / "a", THING) as place:
        place.end()
    before = contents(tmp_path)
    other = Making(kind="thing", identity={"a": 2}, names=())
    with pytest.raises(UserError, match="no"), opened(tmp_path / "a", other, overwrite=True):
        raise UserError("no")
    assert contents(tmp_path) == before


def test_only_own_files_are_cleared(tmp_path: Path) -> None:
    making = Making(kind="thing", names=("samples/*/[0-9].png", "made"))
    with opened(tmp_path, making) as place:
        for name in ("samples/a/1.png", "samples/a/mine.png", "samples/b/2.png", "made", "mine"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        (tmp_path / "samples" / "a" / ".1.png.77.tmp").touch()
        (tmp_path / ".other.77.tmp").touch()
        place.clear()
    with opened(tmp_path, making, resume=True):
        pass
    assert set(contents(tmp_path)) == {IDENTITY, "samples/a/mine.png", "mine", ".other.77.tmp"}
    assert not (tmp_path / "samples" / "b").exists()


def test_a_file_is_written_by_one_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / ".x.json.12.tmp").touch()
    with reserved(tmp_path / "a" / "x.json") as file:
        with pytest.raises(UserError, match="another process is writing"), reserved(tmp_path / "a" / "x.json"):
            pass
        file.touch()
    assert set(contents(tmp_path)) == {"a/x.json"}
    with pytest.raises(UserError, match="already exists"), reserved(tmp_path / "a" / "x.json"):
        pass
    with pytest.raises(UserError, match="no"), reserved(tmp_path / "b" / "c" / "x.json"):
        raise UserError("no")
    assert not (tmp_path / "b").exists()
