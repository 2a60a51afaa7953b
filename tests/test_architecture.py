"""The house rules that a machine can check: who imports whom, what loads when, what must not be shipped."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

import msgm

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"

# In the order of the house: a room may import those above it, and itself. Those named beside a room are all that it
# may import; every room may import `errors`, and `msgm` itself only gathers the public names.
ROOMS = {
    "errors": "",
    "choice": "",
    "processes": "",
    "progress": "processes",
    "storage": "processes",
    "status": "",
    "folders": "processes storage",
    "installed": "",
    "process": "",
    "data": "progress storage",
    "model": "progress process",
    "formats": "processes storage folders process model",
    "sampling": "processes progress installed process data model",
    "likelihood": "processes process model data sampling",
    "forgetting": "processes progress installed process model sampling",
    "training": "processes progress storage status folders process data model formats forgetting",
    "metrics": "progress storage folders process data model formats sampling likelihood",
    "attacks": "progress storage process data model formats sampling likelihood forgetting training metrics",
    "report": "processes progress storage folders status data sampling metrics",
}
LIBRARY = " ".join(ROOMS)
ROOMS["experiments"] = LIBRARY
ROOMS["msgm"] = f"{LIBRARY} experiments"
# The faces take public names from `msgm`, as a user does.
ROOMS["cli"] = f"{LIBRARY} experiments msgm"
ROOMS["__main__"] = "cli"

# Slow to import, or needed by few commands.
HEAVY = {
    "accelerate",
    "datasets",
    "diffusers",
    "gradio",
    "jinja2",
    "matplotlib",
    "pyarrow",
    "ray",
    "rich",
    "scipy",
    "submitit",
    "transformers",
}
BANNED = {"torchvision"}


def room(module: str) -> str:
    """The room of a dotted name: that of ``msgm.data.requests`` is ``data``, that of ``msgm`` is ``msgm``."""
    return module.split(".")[1] if "." in module else module


def imports(nodes: Iterable[ast.AST], module: str, *, package: bool) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything that the import statements among ``nodes`` of ``module`` ask for."""
    parts = module.split(".")
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            here = parts[: len(parts) - node.level + package] if node.level else []
            base = ".".join([*here, *filter(None, [node.module])])
            for alias in node.names:
                # `from msgm import sampling` enters a room; `from msgm import load` asks for a public name.
                enters = base == "msgm" and alias.name in ROOMS
                yield node.lineno, f"msgm.{alias.name}" if enters else base


def on_import(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes below this one that run when the module is imported: no functions, no type-only imports."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and ast.unparse(child.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}:
            continue
        yield child
        yield from on_import(child)


def violations(text: str, module: str, *, package: bool = False) -> list[str]:
    """What the source ``text`` of ``module`` does against the rules, one line each."""
    own, tree, found = room(module), ast.parse(text), []
    if own not in ROOMS:
        return [f"{module}: no such room as {own!r}; give it a line in ROOMS and in the documentation"]
    allowed = {own, "errors", *ROOMS[own].split()}
    for line, name in imports(ast.walk(tree), module, package=package):
        top = name.split(".")[0]
        if top == "msgm" and room(name) not in allowed:
            found.append(f"{module}:{line}: {own} may not import {room(name)}")
        if top in BANNED:
            found.append(f"{module}:{line}: nothing may import {top}")
    if own not in ("cli", "msgm", "__main__"):
        words = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
        found += [
            f"{module}:{node.lineno}: {said[0]} is for the command line to say; give the error its option"
            for node in words
            if (said := re.search(r"(?<![\w-])--[a-z][\w-]+", node.value))
        ]
    for line, name in imports(on_import(tree), module, package=package):
        if (top := name.split(".")[0]) in HEAVY:
            found.append(f"{module}:{line}: import {top} inside the function that uses it")
    return found


def dotted(path: Path) -> str:
    """``src/msgm/data/requests.py`` -> ``msgm.data.requests``."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = sorted((SOURCE / "msgm").rglob("*.py"))


def circle(needs: dict[str, set[str]]) -> list[str]:
    """Files that import each other in a round, or none; ``needs`` has for each the files that it imports."""
    left = {name: set(others) & set(needs) for name, others in needs.items()}
    while free := {name for name, others in left.items() if not others}:
        left = {name: others - free for name, others in left.items() if name not in free}
    return sorted(left)


def files_needed(path: Path) -> set[str]:
    """The files of the package that one asks for, wherever the import stands; its own package's ``__init__`` apart."""
    own, package = dotted(path), path.name == "__init__.py"
    tree, names = ast.parse(path.read_text(encoding="utf-8")), {dotted(module) for module in MODULES}
    asked: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom | ast.Import):
            bases = {name for _, name in imports([node], own, package=package)}
            deep = {f"{base}.{alias.name}" for base in bases for alias in node.names} & names
            asked |= deep or bases & names
    return {name for name in asked if name != own and not own.startswith(f"{name}.")}


def test_no_files_import_each_other_in_a_circle() -> None:
    # The gathering package is asked by the faces, and asks for all names itself, when they are used.
    needs = {dotted(path): files_needed(path) for path in MODULES if dotted(path) != "msgm"}
    assert circle(needs) == []


def test_a_circle_is_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == ["a", "b", "c", "d"]
    assert circle({"a": {"b"}, "b": {"c", "elsewhere"}, "c": set()}) == []


def test_rooms_only_depend_on_rooms_above_them() -> None:
    above: set[str] = set()
    for name, allowed in ROOMS.items():
        assert set(allowed.split()) <= above, name
        above.add(name)


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_imports_point_one_way(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert violations(text, dotted(path), package=path.name == "__init__.py") == []


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("msgm.forgetting.terms", "from ..training.loop import train"),
        ("msgm.forgetting.terms", "def f():\n    from msgm.training.loop import train"),
        ("msgm.forgetting.terms", "from msgm import training"),
        ("msgm.forgetting.terms", "import msgm.training.loop as n"),
        ("msgm.sampling.ode", "from .. import experiments"),
        ("msgm.sampling.ode", "from .. import unlearn"),
        ("msgm.sampling.ode", "import msgm"),
        ("msgm.sampling.ode", "class A:\n    from ..cli import main"),
        ("msgm.process.sde", "if TYPE_CHECKING:\n    from ..model.score import ScoreModel"),
        ("msgm.process.sde", "try:\n    import rich.table\nexcept ImportError:\n    rich = None"),
        ("msgm.process.sde", "from matplotlib import pyplot"),
        ("msgm.data.datasets", "def f():\n    from torchvision.datasets import MNIST"),
        ("msgm.training.loop", 'raise UserError(f"{path} exists; pass --overwrite")'),
        ("msgm.attic", ""),
    ],
)
def test_what_is_against_the_rules_is_flagged(module: str, text: str) -> None:
    assert len(violations(text, module)) == 1


def test_a_forbidden_import_of_a_package_is_flagged() -> None:
    assert violations("from ..training import loop", "msgm.forgetting", package=True) != []
    assert violations("from .terms import Redirect", "msgm.forgetting", package=True) == []


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("msgm.training.loop", "from ..forgetting.terms import Redirect\nfrom ..errors import UserError"),
        ("msgm.forgetting.methods", "from . import terms\nfrom .combine import Sum\nfrom ..model import score"),
        ("msgm.model.networks", "def f():\n    from diffusers import UNet2DModel"),
        ("msgm.model.networks", "if TYPE_CHECKING:\n    from diffusers import UNet2DModel"),
        ("msgm.cli.commands", "def f():\n    import msgm\n    from msgm.experiments import toy"),
        ("msgm.__main__", "from msgm.cli.main import main"),
    ],
)
def test_an_allowed_import_is_not_flagged(module: str, text: str) -> None:
    assert violations(text, module) == []


def test_the_command_line_starts_without_torch() -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, msgm.cli.main; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert loaded.returncode == 0, loaded.stderr
    assert "msgm.cli.main" in loaded.stdout.split()
    assert not {"torch", *HEAVY, *BANNED} & set(loaded.stdout.split())


def test_one_version_everywhere() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert msgm.__version__ == version
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\n## [{version}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


# Where a developer's files lie. The look-behind lets addresses pass (https://host/home/).
MACHINE_PATH = re.compile(rb"(?<![\w.])/(?:Users|home|mnt|root|tmp|work)/|\.\./shared\b")


def test_no_path_of_a_developers_machine_is_shipped() -> None:
    assert MACHINE_PATH.search(b'--out "/tmp/run"')
    assert not MACHINE_PATH.search(b"https://example.org/home/page and runs/tmp/x")
    shipped = [path for path in SOURCE.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert shipped
    assert [str(path.relative_to(ROOT)) for path in shipped if MACHINE_PATH.search(path.read_bytes())] == []
