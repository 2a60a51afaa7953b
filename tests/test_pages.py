"""README and guide: every command and every block of Python in them runs, with a tiny budget."""

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny import FEW_STEPS

import msgm
from msgm.cli.main import COMMANDS, main

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "docs/guide.md"]
ALL = [
    "README.md",
    "CONTRIBUTING.md",
    "benchmarks/README.md",
    *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md")),
]
GENERATED = re.compile(r"<!-- ([\w-]+):begin -->.*?<!-- \1:end -->", re.DOTALL)
# What is typed last counts: the commands of the pages, as small as they can be.
EVIDENCE = ["-n", "4", "--sampler.steps", "2", "--nll-images", "2", "--nll-steps", "2", "--nll-check", "1"]
WATCHED = [
    "--select-every",
    "2",
    "--select-n",
    "4",
    "--select-images",
    "2",
    "--select-nll",
    "300",
    "--select-stop",
    "300",
]
TINY = {
    "train": ["--steps", "2", "--batch", "4"],
    "train-judge": ["--epochs", "1", "--width", "2"],
    "unlearn": ["--steps", "2", "--batch", "4"],
    "sample": ["-n", "2", "--sampler.steps", "2"],
    "nll": ["-n", "2", "--steps", "2"],
    "evaluate": EVIDENCE,
    "sweep": [*EVIDENCE, "--steps", "2", "--batch", "4", "--seeds", "1", "--workers", "1"],
    "inpaint": ["-n", "2", "--sampler.steps", "2"],
    "reconstruct": ["-n", "2", "--steps", "3"],
    "request": [],
}
SMALL = {r"\bsteps=\d+": "steps=3", r"\bn=\d+": "n=4", r"slice\(\d+\)": "slice(2)", r"\.sample\(\d+": ".sample(2"}


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [body for kind, body in found if kind == language]


def commands(page: str) -> list[list[str]]:
    lines = [line for block in blocks(page, "") for line in block.splitlines() if line.startswith("msgm ")]
    return [shlex.split(line)[1:] for line in lines]


def pictures(folder: Path, size: int, n: int, mode: str) -> None:
    folder.mkdir(parents=True)
    for index in range(n):
        noise = torch.randint(256, (size, size, 3), generator=torch.Generator().manual_seed(index), dtype=torch.uint8)
        Image.fromarray(noise.numpy()).convert(mode).save(folder / f"{index}.png")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the pages take for granted: pets, a hole, digits, an example, a model of diffusers."""
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    monkeypatch.chdir(tmp_path)
    for split in ("train", "test"):
        for animal in ("cat", "dog"):
            pictures(tmp_path / "pets" / split / animal, 40, 12, "RGB")
    pictures(tmp_path / "my" / "digits", 30, 2, "L")
    (tmp_path / "my" / "examples").mkdir()
    digit = msgm.Source("demo").open("train").rows([0])[0, 0]
    Image.fromarray(digit.numpy()).save("my/examples/digit.png")
    hole = Image.new("L", (28, 28), 0)
    hole.paste(255, (3, 4, 9, 6))
    hole.save("hole.png")
    network = UNet2DModel(
        sample_size=32, in_channels=3, out_channels=3, layers_per_block=1, block_out_channels=(8,), norm_num_groups=4,
        down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
    )  # fmt: skip
    DDPMPipeline(network, DDPMScheduler()).save_pretrained("path/to/ddpm")
    return tmp_path


def test_the_commands_of_the_guide_run_in_their_order(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = set()
    # An untrained judge finds nothing, and is refused for it.
    monkeypatch.setattr("msgm.metrics.worth.Worth.check", lambda worth: None)
    for words in commands("docs/guide.md"):
        name, select = words[0], "--select" in words
        few = FEW_STEPS if name == "unlearn" and "--method" not in words else []
        main([*words, *TINY[name], *few, *(WATCHED if select else []), "--threads", "1"])
        out = Path(words[words.index("--preview" if name == "request" else "--out") + 1])
        assert out.exists(), words
        ran.add(name)
    assert set(TINY) == ran
    assert not (place / "runs/demo").exists()


def test_a_file_of_options_in_the_guide_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (text,) = blocks("docs/guide.md", "yaml")
    Path("forget.yaml").write_text(text)
    words = shlex.split(re.search(r"for: msgm (.*)", text)[1])
    main([*words, *TINY["unlearn"], "--threads", "1"])
    method = msgm.load("runs/from-a-file").record["method"]
    assert method["forget"]["contrast"] == 3 and method["combine"]["by"] == "PCGrad"


@pytest.mark.parametrize("page", PAGES)
def test_the_python_of_a_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = blocks(page, "python")
    assert found
    for block in found:
        for pattern, less in SMALL.items():
            block = re.sub(pattern, less, block)
        exec(compile(block, page, "exec"), {})


@pytest.fixture(scope="module")
def options() -> set[str]:
    """All that the help of any command names."""
    shown = io.StringIO("--config --print-config --help --version --overwrite ")
    shown.seek(0, io.SEEK_END)
    for name in COMMANDS:
        with contextlib.redirect_stdout(shown), pytest.raises(SystemExit):
            main([name, "--help"])
    return set(re.findall(r"--(?:\[no-\])?([a-z][\w.-]*)", shown.getvalue()))


@pytest.mark.parametrize("page", PAGES)
def test_every_option_and_command_that_a_page_names_is_there(page: str, options: set[str]) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    named = {word.removeprefix("no-").replace("_", "-") for word in re.findall(r"(?<![\w-])--([a-z][\w.-]*\w)", text)}
    # What stands under a name that is given is checked where the command runs.
    assert {word for word in named if "." not in word} - options == {"extra-index-url"} & named
    assert set(re.findall(r"msgm ([a-z][a-z-]+)", text)) - {"makes"} <= set(COMMANDS)
    assert set(re.findall(r"`make (\w+)", text)) <= set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M))


@pytest.mark.parametrize("page", ALL, ids=str)
def test_lines_are_short(page: str) -> None:
    """But for tables, formulas and what a script has made."""
    lines = re.sub(GENERATED, "", (ROOT / page).read_text(encoding="utf-8")).splitlines()
    assert [line for line in lines if len(line) > 120 and not line.startswith(("|", "    "))] == []


@pytest.mark.parametrize("page", ALL, ids=str)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([\w-]+))?\)", text):
        file = (ROOT / page).parent / target if target else ROOT / page
        assert file.exists(), target
        if anchor:
            heads = re.findall(r"^#+ (.*)", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", head).lower().replace(" ", "-") for head in heads}, anchor


def test_no_default_is_typed_in_the_guide() -> None:
    """Numbers that are defaults stand in generated blocks and in ``--help``: what is left says what a number does."""
    text = re.sub(GENERATED, "", (ROOT / "docs/guide.md").read_text(encoding="utf-8"))
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    assert not re.findall(r"[^.\n]*\bdefaults? (?:to|is|of)\b[^.\n]*|\(default[^)]*\)", text)
