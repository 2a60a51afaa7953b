"""The command line as people use it: what it accepts, what it refuses with one line, what it leaves behind."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict, fields, is_dataclass
from inspect import Parameter, signature
from itertools import pairwise
from pathlib import Path
from typing import get_type_hints

import pytest
import torch
from PIL import Image
from tiny import FEW_STEPS

from msgm.choice import Choice
from msgm.cli import commands
from msgm.cli.main import COMMANDS, main
from msgm.cli.measuring import _labels
from msgm.cli.options import Data, build_method
from msgm.cli.reader import read
from msgm.forgetting.combine import PCGrad
from msgm.forgetting.methods import METHODS, PARTS, Method
from msgm.forgetting.regularise import Saliency
from msgm.forgetting.terms import Denoising, Redirect
from msgm.formats import load
from msgm.formats.native import WEIGHTS
from msgm.formats.tensors import weights_sha256
from msgm.metrics.judge import Judge
from msgm.sampling import SAMPLERS
from msgm.sampling.filters import FILTERS

RULE = "label in [3, 7]"
QUICK = ["--threads", "1", "--device", "auto"]
TINY = ["--steps", "2", "--batch", "4", *QUICK]
SOON = [*TINY, *FEW_STEPS]
LOOK = ["-n", "4", "--sampler.steps", "2", "--nll-images", "2", "--nll-steps", "2", "--nll-check", "1"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model folder of two training steps: enough to be read, sampled and unlearned."""
    out = tmp_path_factory.mktemp("trained") / "model"
    main(["train", "--out", str(out), "--network", "small-28", *TINY])
    return str(out)


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder of a judge of digits: that of the package."""
    out = tmp_path_factory.mktemp("judges") / "judge"
    Judge.load("demo").save(out)
    return str(out)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where a command is told to write; a refused command must not make it."""
    return tmp_path / "made" / "out"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of grey 28x28 images: two classes, both splits."""
    for split in ("train", "test"):
        for value, name in enumerate(("cat", "dog")):
            folder = tmp_path / "pictures" / split / name
            folder.mkdir(parents=True)
            for index in range(5):
                Image.new("L", (28, 28), 50 * value + index).save(folder / f"{index}.png")
    return tmp_path / "pictures"


def repaint(folder: Path, mode: str, size: int) -> None:
    for file in folder.rglob("*.png"):
        Image.new(mode, (size, size)).save(file)


def refused(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    """The one line with which a command refuses its input."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in argv])
    lines = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2
    assert len(lines) == 1, lines
    assert lines[0].startswith("msgm: ")
    return lines[0]


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_a_library_takes_for_an_error_of_its_own(number: int) -> None:
    """What a handler raises may come out of C code as another exception, of any kind."""
    code = f"""
import os, signal
import msgm.cli.main as cli
signal.signal({int(number)}, signal.SIG_DFL if {int(number)} != 2 else signal.default_int_handler)
def swallow(*given):
    try:
        os.kill(os.getpid(), {int(number)})
        for _ in range(10**6): pass
    except KeyboardInterrupt:
        raise ValueError("no such shape") from None
cli._run = swallow
cli.main(["inspect", "demo"])
"""
    ended = python("-c", code)
    assert (ended.returncode, ended.stderr) == (128 + number, "msgm: interrupted\n")


# ------------------------------------------------------------------------------------------------ help and spelling


def test_help_lists_the_commands_without_torch() -> None:
    code = (
        "import sys; from msgm.cli.main import main as m; m(['--help']); print('loaded torch:', 'torch' in sys.modules)"
    )
    shown = python("-c", code)
    assert shown.returncode == 0, shown.stderr
    assert "loaded torch: False" in shown.stdout
    for name in COMMANDS:
        assert re.search(rf"^  {name} ", shown.stdout, re.M)


def test_the_package_runs_as_a_module(tmp_path: Path) -> None:
    version = python("-m", "msgm", "--version")
    assert version.returncode == 0
    assert version.stdout.startswith("msgm ")
    wrong = python("-m", "msgm", "sample", "nowhere", "--out", str(tmp_path / "out"))
    assert wrong.returncode == 2
    assert wrong.stdout == ""
    assert wrong.stderr.splitlines() == [
        "msgm: no model folder nowhere; give the path of one, or 'demo' for the model in the package"
    ]
    assert not (tmp_path / "out").exists()


def helped(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What ``msgm COMMAND --help`` prints."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main([*words, "--help"])
    assert stop.value.code == 0
    return capsys.readouterr().out


def entries(shown: str) -> dict[str, str]:
    """The text of each option in a help, by its spelling."""
    found = [" ".join(entry.split()) for entry in re.findall(r"^  \S.*\n(?: {26}.*\n)*", shown, re.MULTILINE)]
    return {words[1]: words[3] for each in found if (words := re.match(r"(-\S+|[A-Z]+)( [A-Z]+)? ?(.*)", each))}


# What makes a command show the options of a thing of this name.
SHOWN = {
    **{f"method {name}": ["unlearn", "--method", name] for name in METHODS},
    **{f"sampler {name}": ["sample", "--sampler", name] for name in SAMPLERS},
    **{f"filter {name}": ["sample", "--filter", name] for name in FILTERS},
    **{f"{role} {name}": ["unlearn", f"--method.{role}", name] for role in PARTS for name in PARTS[role]},
    **{name: [name] for name in COMMANDS},
}


@pytest.mark.parametrize("words", SHOWN.values(), ids=list(SHOWN))
def test_every_option_has_a_description(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    found = entries(helped(capsys, *words))
    assert len(found) >= 2
    for option, text in found.items():
        assert re.match(r"[^\[(]{4}", text), f"no description: {option} {text}"


def defaults(words: list[str]) -> dict[str, object]:
    """What the code says of every option: of the command's function, its settings, and what is chosen by name."""
    function = getattr(commands, words[0].replace("-", "_"))
    hints, found = get_type_hints(function), {}
    for key, parameter in signature(function).parameters.items():
        if hints[key] is Data:
            found |= {f"data.{k}" if k != "name" else key: v for k, v in asdict(parameter.default).items()}
        elif is_dataclass(hints[key]) and hints[key] is not Choice:
            found |= {field.name: field.default for field in fields(hints[key])}
        else:
            found[key] = parameter.default
    if len(words) > 1:
        key, name = words[1].removeprefix("--"), words[2]
        role = key.rpartition(".")[2]
        known = {"method": METHODS, "sampler": SAMPLERS, "filter": FILTERS, **PARTS}[role]
        found |= {f"{key}.{k}": p.default for k, p in signature(known[name]).parameters.items()}
    return {key.replace("_", "-"): value for key, value in found.items()}


@pytest.mark.parametrize("words", SHOWN.values(), ids=list(SHOWN))
def test_the_help_has_the_defaults_of_the_code(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    known, read = defaults(words), 0
    for option, text in entries(helped(capsys, *words)).items():
        key = re.sub(r"^--?(\[no-\])?", "", option)
        shown = re.search(r"\[([^\[\]]*)\]$", text)
        if key in known and option.startswith("-"):
            value, read = known[key], read + 1
            said = {True: "yes", False: "no"}.get(value, value) if isinstance(value, bool) else value
            said = said.name if isinstance(said, Choice) else said
            assert (shown[1] if shown else None) == (None if said in (None, Parameter.empty, ()) else str(said)), key
    assert read >= len(words) // 2


def test_the_help_of_unlearn_fits_two_screens(capsys: pytest.CaptureFixture[str]) -> None:
    lines = helped(capsys, "unlearn").splitlines()
    assert len(lines) <= 100 and max(map(len, lines)) <= 80


@pytest.mark.parametrize("argv", [["unlearn", "demo"], ["reproduce", "toy"]])
def test_a_wrong_option_names_the_command_whose_help_lists_them(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([*argv, "--colour", "red"])
    assert f"msgm {argv[0]} --help" in capsys.readouterr().err


def test_no_arguments_show_the_overview(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    assert "usage: msgm COMMAND" in capsys.readouterr().out


def test_methods_lists_all_of_them(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    main(["methods"])
    shown = capsys.readouterr().out
    for name, recipe in METHODS.items():
        assert re.search(rf"^\S* ?{name}( \*)? ", shown, re.MULTILINE), name
        assert recipe().paper.split(",")[0] in " ".join(shown.split())
    for part in ("pcgrad", "saliency", "negated"):
        assert part in shown


def method_of(*words: str) -> Method:
    """The method that these words of `msgm unlearn` make."""
    given = read("unlearn", commands.unlearn, ["m", "--out", "o", "--forget", RULE, *words])
    return build_method(given["method"])


def test_any_option_of_a_method_and_its_parts_can_be_set() -> None:
    method = method_of(
        *("--method redirect --method.combine.alpha .6 --method.forget.window 2 --method.combine pcgrad".split()),  # noqa: SIM905
        *["--method.regularise", "saliency", "--method.low=0"],
    )
    assert method.combine == PCGrad(alpha=0.6) and method.forget == Redirect(contrast=0.7, low=0, window=2)
    assert method.regularise == Saliency()
    retain = ["--method.retain.weighting", "noise", "--method.alpha", "0.5"]
    assert method_of("--method", "orthogonal", *retain).retain == Denoising(weighting="noise")
    assert method_of("--method", "erasediff", "--method.alpha", "0.5") == METHODS["erasediff"](alpha=0.5)
    for name, recipe in METHODS.items():
        assert method_of("--method", name) == recipe()


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["smaple"], "smaple"),
        (["sample", "m", "--out", "o", "--colour", "red"], "--colour"),
        (["sample", "m", "--out", "o", "-n", "many"], "many"),
        (["sample", "m", "--out", "o", "--sampler", "magic"], "magic"),
        (["sample", "m", "--out", "o", "--sampler.grid", "square"], "square"),
        (["sample", "m", "--out", "o", "--batch", "most"], "most"),
        (["sample", "m"], "out"),
        (["sample", "--out", "o"], "model"),
        (["sample", "m", "--out", "o", "--config", "missing.yaml"], "missing.yaml"),
        (["sample", "m", "--out", "o", "--threads", "0"], "--threads"),
        (["sample", "m", "--out", "o", "--device", "abacus"], "abacus"),
        (["nll", "m", "--device", "meta"], "meta"),
        (["sample", "m", "--out", "o", "--threads", "10000000000"], "--threads must lie between 1 and 256"),
        (["evaluate", "m", "--out", "o", "--device", "abacus"], "abacus"),
        (["unlearn", "m", "--out", "o"], "forget"),
        (["train", "--out", "o", "--steps", "0"], "steps"),
        (["train", "--out", "o", "--method", "exorcise"], "exorcise"),
        (["train", "--out", "o", "--network", "large-28"], "large-28"),
        (["train", "--out", "o", "--network", "small-32"], "28x28"),
        (["train", "--out", "o", "--method", "orthogonal"], "--forget"),
        (["train", "--out", "o", "--data", "nowhere"], "nowhere"),
        (["train-judge", "--out", "o", "--column", "colour"], "colour"),
        (["train-judge", "--out", "o", "--junk-share", "2"], "junk_share"),
        (["evaluate", "m", "--out", "o", "-n", "0"], "n must be"),
        (["demo", "--out", "o", "--batch", "0"], "batch"),
    ],
)
def test_wrong_words_are_refused_in_one_line(
    argv: list[str],
    named: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert named in refused(capsys, *argv)
    assert list(tmp_path.iterdir()) == []


def test_options_come_from_a_file_and_can_be_printed(
    model: str, tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "sample.yaml"
    config.write_text(f"out: {out}\nn: 5\nsampler:\n  name: heun\n  steps: 2\n")
    main(["sample", model, "--config", str(config), "-n", "1", *QUICK])  # what is typed wins
    assert sorted(path.name for path in out.iterdir()) == ["00000.png", "grid.png", "run.json"]
    for spelling in ("--print_config", "--print-config"):
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main(["unlearn", model, "--out", "o", "--forget", RULE, "--save_every", "7", spelling])
        assert stop.value.code == 0
        shown = capsys.readouterr().out
        assert "save_every: 7" in shown
        assert f"forget: {RULE}" in shown


@pytest.mark.parametrize(
    "words",
    [
        "unlearn m --out o --forget f --method siss --method.mix .3 --method.combine pcgrad --method.combine.alpha .6",
        "unlearn m --out o --forget f --method.forget.window 2 --data mnist --data.size 32 --flip --select",
        "train --out o --sde vp --no-flip --network small-28",
        "sample m --out o -n 3 --sampler ddim --sampler.eta .5 --filter repel --filter.strength 2 --forget f --batch 9",
        "evaluate m --out o --sampler rk45 --sampler.tolerance .01 --judge j",
        "sweep m --out o --forget f --method unseen --method redirect --method.alpha [.4,.5] --method.combine turns",
        "nll m --solver dopri5 --vlb",
        "inpaint m --out o --mask band",
        "reproduce toy --out o",
    ],
)
def test_a_printed_config_is_read_again(words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, *rest = words.split()
    with pytest.raises(SystemExit) as stop:
        main([name, *rest, "--print-config"])
    assert stop.value.code == 0
    file = tmp_path / "printed.yaml"
    file.write_text(capsys.readouterr().out)
    function = getattr(commands, name.replace("-", "_"))
    given = read(name, function, rest)
    assert read(name, function, ["--config", str(file)]) == given
    assert given["out" if name != "nll" else "solver"] in (Path("o"), "dopri5")


# ------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "argv",
    [
        ["sample", "\x1b[31mred", "--out", "o"],
        ["sample", "m", "--out", "o\x1b]0;title\x07"],
        ["unlearn", "m", "--out", "o", "--forget", "label == 3\r"],
        ["\x1b[2J"],
        ["sample", "m", "--out", "o", "--sampler", "\x9b31m"],
    ],
)
def test_nothing_that_moves_the_cursor_reaches_the_terminal(
    argv: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    line = refused(capsys, *argv)
    assert line.isprintable() and "cannot be printed" in line
    assert list(tmp_path.iterdir()) == []


def test_what_a_file_says_cannot_move_the_cursor_either(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text('sampler: {name: "\\e[31mred"}\nout: o\n')
    line = refused(capsys, "sample", "m", "--config", file)
    assert line.isprintable() and "red" in line and "known: heun" in line


@pytest.mark.parametrize("how", ["aliases", "deep", "large", "pipe", "folder"])
def test_a_file_of_options_that_would_never_end_is_refused(
    how: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bad.yaml"
    if how == "pipe":
        os.mkfifo(file)
    elif how == "folder":
        file.mkdir()
    else:
        grown = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in pairwise("abcdefgh"))
        file.write_text({"aliases": grown, "deep": "n: " + "[" * 30, "large": "n: 1\n" * 10**5}[how])
    line = refused(capsys, "sample", "m", "--out", tmp_path / "o", "--config", file)
    expected = {"large": "larger than 64 KiB", "pipe": "is no file", "folder": "is no file"}
    assert expected.get(how, "write plainly") in line and "bad.yaml" in line


def test_a_list_of_images_is_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "list")
    line = refused(capsys, "unlearn", "demo", "--forget-list", tmp_path / "list", "--out", tmp_path / "o")
    assert "list is no file" in line


def test_a_message_has_at_most_300_characters(capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "sample", "m" * 2000, "--out", "o")
    assert len(line) <= 300 + len("msgm: ") and line.endswith("…")


def test_a_judge_that_nothing_uses_is_refused(model: str, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weighs = ["--method", "reweight", "--confidence", "demo"]
    assert "--forget RULE" in refused(capsys, "train", "--out", out, *weighs)
    assert "leave it out" in refused(capsys, "train", "--out", out, "--confidence", "demo")
    assert "no option --judge" in refused(capsys, "train", "--out", out, "--judge", "demo")
    assert "leave it out" in refused(capsys, "unlearn", model, "--forget", RULE, "--out", out, "--judge", "demo")
    assert not out.parent.exists()


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("label == 42", "selects none"),
        ("label >= 0", "selects all"),
        ("colour == 1", r"colour.*known columns: label"),
        ("label in [3, 7", "cannot be read"),
        ("__import__('os')", "not a comparison"),
    ],
)
@pytest.mark.parametrize("command", ["unlearn", "train", "nll", "evaluate"])
def test_rules_that_make_no_sense(
    command: str, rule: str, expected: str, model: str, judge: str, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = {
        "unlearn": ["unlearn", model],
        "train": ["train", "--method", "unseen"],
        "nll": ["nll", model],
        "evaluate": ["evaluate", model, "--judge", judge],
    }[command]
    line = refused(capsys, *argv, "--forget", rule, "--out", out)
    if command == "nll" and expected.startswith("selects"):
        expected = "leaves no"
    assert re.search(expected, line), line
    assert not out.parent.exists()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--method", "exorcise"], "known: standard, unseen, orthogonal, obtuse, erasediff, neggrad, neggrad-plus, "),
        (
            ["--method.keep", "0.3"],
            "no option --method.keep; of method there are --method.alpha, --method.every, ",
        ),
        (["--method.keep"], "no option --method.keep"),
        (["--method.alpha", "much"], "--method.alpha: expected a number; got much"),
        (["--method.combine", "sum"], "no combine 'sum'; known: weighted"),
        (["--method.forget.depth", "2"], "no option --method.forget.depth; of method.forget there are --method.forget"),
        (["--method", "deflect", "--method.forget.weighting", "odd"], "expected one of 'image', 'noise'; got odd"),
        (["--method.regularise.keep", "0.3"], "say first which one: --method.regularise NAME"),
        (["--method", "unseen", "--method.combine", "pcgrad"], "no forget term"),
        (["--method", "reweight"], "--confidence FOLDER"),
        (["--confidence", "demo"], "method moderate does not use --confidence; leave it out"),
        (["--judge", "demo"], "--judge is used by --select, --seeds and --retain-samples; leave it out"),
        (["--method", "unseen", "--method.alpha", "0.5"], "no option --method.alpha"),
        (["--method", "redirect", "--method.form", "inner"], "no option --method.form"),
        (
            ["--method", "orthogonal", "--method.form", "diagonal"],
            "one of 'elementwise', 'inner', 'literal'",
        ),
        (["--method.alpha", "0"], "alpha"),
        (["--method.alpha", "1.5"], "alpha"),
        (["--method.every", "0"], "every"),
        (["--lr", "-1"], "lr"),
        (["--ema", "1"], "ema"),
        (["--threads", "0"], "--threads"),
        (["--data", "nowhere"], "nowhere"),
    ],
)
def test_unlearn_refuses(
    options: list[str], expected: str, model: str, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert expected in refused(capsys, "unlearn", model, "--forget", RULE, "--out", out, *options)
    assert not out.parent.exists()


@pytest.mark.parametrize("damage", ["truncated", "text"])
def test_a_broken_image_is_named(
    damage: str, model: str, pictures: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if damage == "truncated":
        broken = pictures / "train" / "dog" / "1.png"
        noise = torch.randint(256, (28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        Image.fromarray(noise.numpy()).save(broken)
        broken.write_bytes(broken.read_bytes()[:300])
    else:
        broken = pictures / "train" / "cat" / "notes.png"
        broken.write_text("not an image")
    for argv in (
        ["train", "--data", pictures],
        ["train-judge", "--data", pictures],
        ["unlearn", model, "--data", pictures, "--forget", "label == 1"],
    ):
        assert str(broken) in refused(capsys, *argv, "--out", out)
        assert not out.parent.exists()


def test_what_is_left_out_is_said(pictures: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (pictures / "train" / "cat" / "notes.txt").write_text("not an image")
    main(["train", "--data", str(pictures), "--out", str(out), *TINY])
    assert (
        f"note: left out of {pictures / 'train'}, no images by their names: cat/notes.txt\n" in capsys.readouterr().err
    )


@pytest.mark.parametrize("damage", ["missing", "truncated", "record", "folder"])
@pytest.mark.parametrize("command", ["unlearn", "sample", "nll", "evaluate"])
def test_a_broken_model_is_named(
    command: str,
    damage: str,
    model: str,
    judge: str,
    tmp_path: Path,
    out: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    broken = tmp_path / "broken"
    if damage == "folder":
        broken.mkdir()
        named = broken
    else:
        shutil.copytree(model, broken)
        named = broken / ("moderation.json" if damage == "record" else f"unet/{WEIGHTS}")
        if damage == "missing":
            named.unlink()
        else:
            named.write_bytes(named.read_bytes()[:-100])
    extra = {"evaluate": ["--forget", RULE, "--judge", judge], "unlearn": ["--forget", RULE]}.get(command, [])
    assert str(named) in refused(capsys, command, broken, "--out", out, *extra)
    assert not out.parent.exists()


@pytest.mark.parametrize(("mode", "size"), [("L", 32), ("RGB", 28)])
@pytest.mark.parametrize("command", ["unlearn", "nll", "evaluate"])
def test_images_that_are_not_the_models(
    command: str,
    mode: str,
    size: int,
    model: str,
    judge: str,
    pictures: Path,
    out: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    repaint(pictures, mode, size)
    extra = ["--judge", judge] if command == "evaluate" else []
    line = refused(capsys, command, model, "--data", pictures, "--forget", "label == 1", "--out", out, *extra)
    assert "(1, 28, 28)" in line
    assert f"({1 if mode == 'L' else 3}, {size}, {size})" in line
    assert not out.parent.exists()


@pytest.mark.parametrize("command", ["train", "train-judge", "unlearn", "sample", "nll", "evaluate", "demo"])
def test_what_is_there_already_stays(
    command: str, model: str, judge: str, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = out if command == "nll" else out / "mine.txt"
    kept.parent.mkdir(parents=True)
    kept.write_text("mine")
    positional = [] if command in ("train", "train-judge", "demo") else [model]
    extra = {"unlearn": ["--forget", RULE], "evaluate": ["--forget", RULE, "--judge", judge]}.get(command, [])
    line = refused(capsys, command, *positional, "--out", out, *extra)
    assert "already exists" in line
    assert kept.read_text() == "mine"
    assert [path for path in out.parent.rglob("*") if path.is_file()] == [kept]


def test_an_output_folder_that_is_a_file(model: str, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out.parent.mkdir()
    out.write_text("mine")
    assert "is a file" in refused(capsys, "sample", model, "--out", out)
    assert out.read_text() == "mine"


def test_a_full_disk_leaves_the_previous_model(
    model: str, unlearned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tmp_path / "model"
    shutil.copytree(unlearned, before)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("msgm.storage.os.fsync", full)
    for extra in (["--save-every", "1"], ["--save-every", "9"]):  # in a saved state, and in the model at the end
        command = ["unlearn", model, "--forget", RULE, "--out", str(before), "--overwrite", *SOON, *extra]
        with pytest.raises(SystemExit) as stop:
            main(command)
        assert stop.value.code == 2
        line = capsys.readouterr().err.splitlines()[-1]
        assert line.startswith("msgm: ")
        assert "No space left on device" in line
        assert weights_sha256(load(before).network) == weights_sha256(load(unlearned).network)
        assert load(before).record == load(unlearned).record
        assert not [path for path in before.rglob("*") if "tmp" in path.name]


def test_a_foreign_model_needs_its_data_named(tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    UNet2DModel(
        sample_size=28,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 8),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=8,
    ).save_pretrained(tmp_path / "foreign")
    asked = ["unlearn", str(tmp_path / "foreign"), "--forget", RULE, "--out", str(out)]
    assert "--data" in refused(capsys, *asked)
    assert not out.parent.exists()
    main([*asked, "--data", "demo", *SOON])
    assert load(out).record["data"]["name"] == "demo"
    assert json.loads((out / "model_index.json").read_text())["_class_name"] == "DDPMPipeline"


def test_a_record_says_how_the_images_were_read(
    pictures: Path, tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in pictures.rglob("*.png"):
        Image.open(file).resize((40, 40)).save(file)
    parent = tmp_path / "parent"
    main(["train", "--data", "pictures", "--data.dir", str(tmp_path), "--data.size", "28", "--out", str(parent), *TINY])
    known = load(parent).record["data"]
    assert {k: known[k] for k in known if k not in ("sha256", "images", "classes")} == {
        "name": "pictures",
        "dir": str(tmp_path),
        "size": 28,
    }
    main(["unlearn", str(parent), "--forget", "label == 1", "--out", str(out), *SOON])
    assert load(out).record["data"] == known

    moved = pictures.rename(tmp_path / "elsewhere")
    again = ["unlearn", str(parent), "--forget", "label == 1", "--out", str(tmp_path / "again"), *SOON]
    assert "say where its images are with --data" in refused(capsys, *again)
    assert "has (1, 40, 40)" in refused(capsys, *again, "--data", moved)
    main([*again, "--data", str(moved), "--data.size", "28"])


@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_a_broken_judge_is_named(
    damage: str, model: str, judge: str, tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "judge"
    if damage == "truncated":
        shutil.copytree(judge, broken)
        weights = broken / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-10])
    line = refused(capsys, "evaluate", model, "--forget", RULE, "--judge", broken, "--out", out)
    assert str(broken) in line
    assert not out.parent.exists()


def test_evaluate_needs_a_request(model: str, judge: str, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--forget" in refused(capsys, "evaluate", model, "--judge", judge, "--out", out)
    assert not out.parent.exists()


# ------------------------------------------------------------------------------------------------------- good input


@pytest.fixture(scope="module")
def unlearned(model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("unlearned") / "model"
    main(
        ["unlearn", model, "--forget", RULE, "--method", "redirect", "--steps", "3", "--save-every", "1", "--seed", "1",
         "--batch", "4", "--out", str(out), *QUICK]
    )  # fmt: skip
    return out


def test_unlearn_writes_a_model_and_its_record(model: str, unlearned: Path) -> None:
    parent, child = load(model), load(unlearned)
    assert child.record["kind"] == "unlearned"
    assert child.record["request"]["rule"] == RULE
    assert child.record["data"]["name"] == "demo"
    assert child.record["request"]["retain"] + child.record["request"]["forget"] == 8000
    assert child.record["parent"]["weights_sha256"] == weights_sha256(parent.network)
    assert child.record["weights_sha256"] == weights_sha256(child.network) != weights_sha256(parent.network)
    assert child.record["method"]["name"] == "redirect"
    assert child.record["settings"]["save_every"] == 1
    assert child.record["seed"] == 1
    assert child.record["command"].startswith(f"msgm unlearn {model} --forget '{RULE}' --method redirect")
    steps = [json.loads(line)["step"] for line in (unlearned / "log.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3]
    assert not (unlearned / "resume.safetensors").exists()


def test_peers_with_options_and_a_judge(model: str, judge: str, tmp_path: Path) -> None:
    rows = {
        "salun": [
            "--method",
            "salun",
            "--method.keep",
            "0.3",
            "--method.regularise.batches",
            "1",
            "--method.combine",
            "pcgrad",
        ],
        "reweight": ["--method", "reweight", "--confidence", judge, "--method.power", "2"],
    }
    for name, options in rows.items():
        main(["unlearn", model, "--forget", RULE, "--out", str(tmp_path / name), *options, *TINY])
        assert load(tmp_path / name).record["method"]["name"] == name
    record = load(tmp_path / "salun").record["method"]
    assert record["combine"] == {"by": "PCGrad", "every": 1, "alpha": 0.5}
    assert record["regularise"] == {"by": "Saliency", "keep": 0.3, "batches": 1}
    record = load(tmp_path / "reweight").record
    assert record["method"]["power"] == 2 and len(record["confidence_sha256"]) == 64


def test_resume_of_a_finished_run_changes_nothing(
    model: str, unlearned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (unlearned / "moderation.json").read_bytes()
    line = refused(capsys, "unlearn", model, "--forget", RULE, "--out", unlearned, "--resume", *QUICK)
    assert "finished" in line
    assert (unlearned / "moderation.json").read_bytes() == before


def test_sample_writes_a_file_for_each_and_a_grid(model: str, out: Path) -> None:
    main(["sample", model, "-n", "3", "--sampler.steps", "2", "--out", str(out), *QUICK])
    names = ["00000.png", "00001.png", "00002.png", "grid.png", "run.json"]
    assert sorted(path.name for path in out.iterdir()) == names
    with Image.open(out / "00002.png") as image:
        assert (image.mode, image.size) == ("L", (28, 28))
    third = (out / "00002.png").read_bytes()
    main(
        ["sample", model, "--n=1", "--sampler", "pc", "--sampler.steps", "2", "--out", str(out), "--overwrite", *QUICK]
    )
    assert sorted(path.name for path in out.iterdir()) == ["00000.png", "grid.png", "run.json"]
    main(["sample", model, "--n", "3", "--sampler.steps", "2", "--out", str(out), "--overwrite", *QUICK])
    assert (out / "00002.png").read_bytes() == third


def test_sample_takes_every_sampler_by_name(model: str, tmp_path: Path) -> None:
    drawn = set()
    for name in SAMPLERS:
        out = tmp_path / name
        main(["sample", model, "-n", "1", "--sampler", name, "--sampler.grid", "log-snr", "--sampler.steps", "3",
              "--out", str(out), "--batch", "1", *QUICK])  # fmt: skip
        drawn.add((out / "00000.png").read_bytes())
    # On three times, and without a past, some of them coincide by definition.
    assert len(drawn) >= 7


def test_sample_goes_on_with_resume(model: str, tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["sample", model, "--sampler", "dpm++", "--sampler.steps", "3", "--batch", "2", *QUICK]
    main([*command, "-n", "5", "--out", str(tmp_path / "whole")])
    for n in ("3", "5"):
        main([*command, "-n", n, "--out", str(out), "--resume"])
    for file in (tmp_path / "whole").iterdir():
        assert (out / file.name).read_bytes() == file.read_bytes()
    assert json.loads((out / "run.json").read_text())["identity"]["sampler"] == "dpm++"
    line = refused(capsys, *command[:-4], *QUICK, "--batch", "2", "-n", "9", "--seed", "1", "--out", out, "--resume")
    assert "seed was 0, is 1" in line


@pytest.mark.parametrize(("option", "value"), [("-n", "0"), ("--sampler.steps", "0"), ("--batch", "0")])
def test_sample_refuses_nothing_to_do(
    option: str, value: str, model: str, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(capsys, "sample", model, option, value, "--out", out)
    assert not out.parent.exists()


def test_nll_of_both_sets(unlearned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "nll.json"
    main(["nll", str(unlearned), "-n", "2", "--steps", "2", "--out", str(file), *QUICK])
    shown = capsys.readouterr().out
    found = json.loads(file.read_text())
    assert found["rule"] == RULE
    for key in ("retain", "forget"):
        assert f"{found[key]['bits_per_dim']:.4f} ±" in shown
        assert len(found[key]["images"]) == 2
        assert found[key]["bits_per_dim"] == pytest.approx(sum(found[key]["images"]) / 2)
        assert isinstance(found[key]["reliable"], bool)


def test_nll_of_one_image_has_no_error_to_report(model: str, tmp_path: Path) -> None:
    main(["nll", model, "-n", "1", "--steps", "2", "--out", str(tmp_path / "nll.json"), *QUICK])
    assert json.loads((tmp_path / "nll.json").read_text())["all"]["stderr"] is None


def test_nll_of_other_solvers_and_the_bound(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, file = tmp_path / "ddpm", tmp_path / "nll.json"
    main(["train", "--out", str(folder), "--network", "small-28", "--sde", "ddpm", *TINY])
    options = ["--solver", "dopri5", "--rtol", "10", "--atol", "10", "--max-nfe", "13", "--vlb", "--vlb-steps", "3"]
    main(["nll", str(folder), "-n", "2", *options, "--out", str(file), *QUICK])
    found = json.loads(file.read_text())
    assert (found["solver"], found["rtol"], found["max_nfe"]) == ("dopri5", 10, 13)
    assert found["all"]["nfe"] == 13
    assert found["all"]["unfinished"] == 2  # tolerances are divided by 32
    assert found["all"]["images"] == [None, None]
    assert found["all"]["bound"]["bits_per_dim"] > 0
    shown = capsys.readouterr().out
    assert "all, bound" in shown
    assert "2 images did not end within --max-nfe" in shown
    for wrong, expected in ((["--vlb-steps", "1000"], "1 to 999"), (["--probes", "gaussian"], "fixed or exact")):
        assert expected in refused(capsys, "nll", folder, *options, *wrong, "-n", "1")


def test_evaluate_writes_results_and_report(model: str, unlearned: Path, judge: str, out: Path) -> None:
    # Both folders are called "model": each keeps its own row, samples and record.
    main(["evaluate", str(unlearned), "--against", model, "--judge", judge, "--out", str(out), "--threads", "1", *LOOK])
    results = json.loads((out / "results.json").read_text())
    assert set(results) == {"command", "seed", "commit", "budget", "judge", "rows"}
    assert results["judge"]["recall"]["value"] > 0.9 > 0.1 > results["judge"]["false_positives"]["value"]
    assert results["command"].startswith(f"msgm evaluate {unlearned} --against {model}")
    assert [row["method"] for row in results["rows"]] == ["standard", "redirect"]
    assert len({row["model"] for row in results["rows"]}) == 2
    for row in results["rows"]:
        assert set(row["unlearning_ratio"]) == {"value", "low", "high", "n"}
        assert row["unlearning_ratio"]["n"] == 4
        assert row["unlearning_ratio"]["value"] + row["junk"] + row["retained"] == pytest.approx(1)
        assert set(row["nll"]) == {"retain", "forget"}
        assert len(list((out / "samples" / row["model"]).glob("*.png"))) == 4
    page = (out / "report.html").read_text()
    assert RULE in page
    assert "redirect" in page
    assert results["judge"]["sha256"][:12] in page and "real retained ones" in page


def test_a_judge_that_cannot_tell_is_refused(
    model: str, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    blind = Judge(range(10), (1, 28, 28), width=2)
    blind.record = {"confusion": torch.eye(11, dtype=torch.int64).tolist()}
    blind.save(tmp_path / "blind")
    line = refused(capsys, "evaluate", model, "--forget", RULE, "--judge", tmp_path / "blind", "--out", out, *LOOK)
    assert "cannot tell what is to be forgotten" in line and "--judge" in line


def test_train_judge_saves_what_evaluate_reads(pictures: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["train-judge", "--data", str(pictures), "--out", str(out), "--epochs", "1", "--batch", "2", "--width", "2",
          "--half", "--threads", "1"])  # fmt: skip
    made = Judge.load(out)
    assert made.names == ("cat", "dog")
    assert made.record["command"].startswith("msgm train-judge --data")
    assert "test images right" in capsys.readouterr().out


# ---------------------------------------------------------------------------------------------------------- filters


@pytest.mark.parametrize("name", ["repel", "safe", "guided", "contrast"])
def test_sample_through_each_filter(name: str, model: str, judge: str, out: Path) -> None:
    needs = {"guided": ["--forget", RULE, "--guide", judge], "contrast": ["--against", "demo"]}
    extra = needs.get(name, ["--forget", RULE])
    command = ["sample", model, "-n", "1", "--sampler.steps", "3", "--out", str(out), "--filter", name, *extra, *QUICK]
    main([*command, "--filter.strength", "9"])
    strong = (out / "00000.png").read_bytes()
    with pytest.raises(SystemExit):  # another strength is another run
        main([*command, "--filter.strength", "3", "--resume"])
    main(["sample", model, "-n", "1", "--sampler.steps", "3", "--out", str(out), "--overwrite", *QUICK])
    plain = (out / "00000.png").read_bytes()
    if name != "repel":  # an untrained model is too far from every image
        assert plain != strong


def test_samples_go_on_with_the_guide_of_the_same_weights(
    model: str, judge: str, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    guide = tmp_path / "guide"
    shutil.copytree(judge, guide)
    command = ["sample", model, "-n", "1", "--sampler.steps", "3", "--filter", "guided", "--forget", RULE, *QUICK]
    main([*command, "--out", str(out), "--guide", str(guide)])
    main([*command, "--out", str(out), "--guide", judge, "-n", "2", "--resume"])
    other = Judge.load(judge)
    with torch.no_grad():
        other.network.out.bias.add_(1)
    other.save(guide)
    line = refused(capsys, *command, "--out", out, "--guide", guide, "-n", "3", "--resume")
    assert "filter.guide was" in line


def test_evaluate_measures_a_model_with_and_without_its_filter(model: str, judge: str, out: Path) -> None:
    main(["evaluate", model, "--against", model, "--filter", "guided", "--guide", judge, "--judge", judge,
          "--forget", RULE, "--out", str(out), "--threads", "1", *LOOK])  # fmt: skip
    rows = json.loads((out / "results.json").read_text())["rows"]
    assert [row["method"] for row in rows] == ["standard", "standard + guided"]
    assert "One judge has guided" in (out / "report.html").read_text()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--filter", "repell"], "known: repel, safe, guided, contrast"),
        (["--filter", "repel"], "--forget RULE"),
        (["--filter", "guided"], "--forget RULE"),
        (["--filter", "contrast"], "--against MODEL"),
        (["--filter", "repel", "--forget", RULE, "--guide", "demo"], "--guide is for --filter guided"),
        (["--filter.strength", "2"], "no option --filter.strength; say first which one: --filter NAME"),
        (["--filter", "safe", "--forget", RULE, "--filter.strength", "0"], "strength"),
        (["--filter", "safe", "--forget", "label == 11"], "selects none"),
        (["--filter", "guided", "--forget", RULE, "--guide", "nowhere"], "nowhere"),
        (["--filter", "guided", "--forget", RULE, "--data", "x/demo"], "are of x/demo; name a guide that was trained"),
    ],
)
def test_a_filter_without_what_it_needs(
    options: list[str], word: str, model: str, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert word in refused(capsys, "sample", model, "--out", out, *options)
    assert not out.exists()


def test_methods_lists_the_filters(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    main(["methods"])
    shown = capsys.readouterr().out
    for word in ("repel", "safe", "guided", "contrast", "--guide", "radius=auto, strength=1.6"):
        assert word in shown


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}


def test_an_ascii_locale_ends_no_command(tmp_path: Path) -> None:
    """What cannot be written there is written otherwise; names that are not UTF-8 there are refused first."""
    words = [sys.executable, "-m", "msgm", "nll", "demo", "-n", "2", "--steps", "1", "--device", "cpu"]
    done = subprocess.run(words, capture_output=True, env={**os.environ, **ASCII}, timeout=300)
    assert done.returncode == 0 and b"\\xb1" in done.stdout, done.stderr
    named = os.fsencode(tmp_path) + b"/m\xc3\xa4.json"
    done = subprocess.run([*words, "--out", named], capture_output=True, env={**os.environ, **ASCII}, timeout=300)
    assert done.returncode == 2 and done.stderr.count(b"\n") == 1 and b"cannot be printed" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("word", [str(2**70), "1" + "0" * 400, "nan", "inf", "1e400"])
@pytest.mark.parametrize("option", ["--seed", "--lr", "--steps", "--data.size", "--weight-decay"])
def test_numbers_out_of_reach_are_refused(
    option: str, word: str, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(capsys, "train", f"{option}={word}", "--out", out)
    assert option in line and len(line) < 310 and not out.parent.exists()


def test_two_folders_of_one_name_are_two_rows() -> None:
    assert len(set(_labels(["a/b/m", "a-b/m"]).values())) == 2
