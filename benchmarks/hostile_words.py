"""Hostile words: files of options, values of options, rules and command lines."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hostile_base import RULE, put, sampled
from hostile_files import (
    JUNK,
    ODD,
    Case,
    Words,
    odd,
)


def options_files(base: Path) -> Iterator[Case]:
    """Files of options."""
    laughs = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    texts = {
        "code": "n: !!python/object/apply:os.mkdir [pwned]\n",
        "class": "n: !!python/name:os.system\n",
        "laughs": laughs,
        "deep": "n: " + "[" * 10_000,
        "escape": 'n: "\\e[2J"\n',
        "unknown": "nothing: 1\n",
        "kinds": "n: {a: 1}\n",
        "html": "sampler: <script>\n",
        "list": "- 1\n",
        "word": "x\n",
        "numbers": "n: 1e400\n",
        "nothing": "n:\n",
        "twice": "n: 1\nn: [2]\n",
        "merge": "<<: 3\n",
    }
    for name, text in texts.items():
        yield Case(kind="files of options", name=name, words=lambda at, t=text: _config(at, t.encode()))
    for name, content in JUNK.items():
        if name not in ("empty", "null"):
            yield Case(kind="files of options", name=name, words=lambda at, c=content: _config(at, c))
    for how in ODD:
        if how not in JUNK:
            yield Case(kind="files of options", name=how, words=lambda at, how=how: [*_config(at, b""), *_odd(at, how)])
        yield Case(kind="lists", name=how, words=lambda at, how=how: _list(at, how))


def _odd(folder: Path, how: str) -> Words:
    odd(folder / "c.yaml", how)
    return []


def _list(folder: Path, how: str) -> Words:
    odd(folder / "list", how)
    return ["unlearn", "demo", "--forget-list", str(folder / "list"), "--out", str(folder / "out"), "--steps", "1"]


def _config(folder: Path, content: bytes) -> Words:
    return ["sample", "demo", "--out", str(folder / "out"), "--config", str(put(folder / "c.yaml", content))]


NUMBERS = [
    "nan",
    "inf",
    "-inf",
    "-1",
    "1e400",
    str(2**70),
    "1" + "0" * 400,
    "",
    " ",
    "0x10",
    "[1,2",
    "{}",
    "null",
    "a" * 5000,
    "١٢",
    "1_0",
    "\x1b[2J",
    "--",
    "=",
    "../..",
    "$(touch pwned)",
]
COMMANDS = {
    "train": "--n --steps --batch --lr --warmup --cooldown --weight-decay --clip --ema --noise-mean --seed "
    "--threads --guard --save-every --device --network --sde --data --data.size --method --forget",
    "train-judge": "--epochs --batch --lr --junk-share --width --seed --threads --data.size --column --device",
    "unlearn": "--steps --seeds --n --nll-images --workers --select-every --select-n --select-share --forget "
    "--confidence",
    "sample": "-n --seed --batch --threads --sampler --sampler.steps --sampler.grid --filter --against --guide "
    "--device",
    "nll": "-n --steps --rtol --atol --max-nfe --repeats --vlb-steps --seed --solver --clock --probes",
    "inpaint": "-n --resample --jump --seed --mask --images --judge --sampler.steps",
    "reconstruct": "-n --perturb --steps --seed",
    "evaluate": "-n --nll-images --nll-steps --nll-check --renoise-images --seed --judge --sampler.steps --against",
    "audit": "--budget --attacks --workers --seed --retrained --guide",
    "sweep": "--steps --batch --seeds --workers --method --judge",
    "reproduce": "--seed --seeds --threads --minutes --budget",
    "demo": "--steps --batch -n --seed --threads --nll-images",
    "convert": "--weights --class-label --size --process --model-factory",
}
POSITIONAL = {name: ["demo"] for name in COMMANDS if name not in ("train", "train-judge", "demo", "reproduce")} | {
    "reproduce": ["toy"]
}
NEEDED = {
    "unlearn": ["--forget", RULE],
    "inpaint": ["--mask", "band"],
    "evaluate": ["--forget", RULE],
    "audit": ["--against", "demo", "--forget", RULE],
    "sweep": ["--forget", RULE],
}


def options(base: Path) -> Iterator[Case]:
    """Words in the place of every option; some of them are numbers that one may give."""
    for name, given_to in COMMANDS.items():
        for option in given_to.split():
            for word in NUMBERS:

                def make(folder: Path, name: str = name, option: str = option, word: str = word) -> Words:
                    given = NEEDED.get(name, [])
                    given = [w for k in range(0, len(given), 2) for w in given[k : k + 2] if given[k] != option]
                    return [
                        name,
                        *POSITIONAL.get(name, []),
                        *given,
                        "--out",
                        str(folder / "out"),
                        f"{option}={word}" if option.startswith("--") else option,
                        *([] if option.startswith("--") else [word]),
                    ]

                yield Case(kind="words", name=f"{name} {option} {word[:20]!r}", words=make, must=False, until_work=True)


def invented(base: Path, number: int) -> Iterator[Case]:
    """Rules, command lines and JSON that hypothesis makes."""
    from hypothesis import HealthCheck, Phase, given, seed, settings
    from hypothesis import strategies as st

    found: dict[str, list[Any]] = {"rules": [], "lines": [], "records": []}
    how = settings(
        max_examples=number,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    token = st.sampled_from(
        [
            "label",
            "==",
            "in",
            "not",
            "and",
            "or",
            "(",
            ")",
            "[",
            "]",
            "3",
            ",",
            "-1",
            "'a'",
            "1e9",
            "<",
            "<=",
            "**",
            "lambda",
            ":",
            "__import__",
            ".",
        ]
    )
    rule = st.one_of(
        st.text(max_size=60),
        st.lists(token, max_size=12).map(" ".join),
        st.integers(1, 3000).map(lambda n: "(" * n + "label == 3" + ")" * n),
        st.integers(1, 3000).map(lambda n: "not " * n + "label == 3"),
    )
    words = st.lists(
        st.one_of(
            st.text(max_size=12),
            st.sampled_from(
                [
                    *POSITIONAL,
                    *COMMANDS,
                    "--out",
                    "--n",
                    "-n",
                    "--config",
                    "--help-",
                    "--sampler",
                    "--",
                    "demo",
                    "--method.x",
                ]
            ),
        ),
        max_size=7,
    )
    tree = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
        max_leaves=12,
    )
    for key, strategy in (
        ("rules", rule),
        ("lines", words),
        (
            "records",
            st.dictionaries(
                st.sampled_from(
                    [
                        "request",
                        "data",
                        "method",
                        "parent",
                        "settings",
                        "status",
                        "selection",
                        "kind",
                        "seed",
                        "earlier",
                        "previous",
                        "runtime",
                        "command",
                    ]
                ),
                tree,
                max_size=5,
            ),
        ),
    ):

        @seed(1)
        @how
        @given(strategy)
        def take(example: Any) -> None:
            found[key].append(example)  # noqa: B023 (called at once)

        take()
    for each in found["rules"]:
        yield Case(
            kind="invented rules",
            name=repr(each)[:60],
            words=lambda at, e=each: ["unlearn", "demo", f"--forget={e}", "--out", str(at / "out")],
            must=False,
            until_work=True,
        )
    for each in found["lines"]:
        yield Case(
            kind="invented command lines",
            name=repr(each)[:60],
            words=lambda at, e=each: [*e, "--threads", "x"],
            must=not {"-h", "--help", "--version"} & set(each[:1]),
        )
    for each in found["records"]:

        def make(folder: Path, each: Any = each) -> Words:
            from msgm.formats.ledger import sealed

            shutil.copytree(base / "model", folder / "in")
            path = folder / "in" / "moderation.json"
            path.write_text(json.dumps(sealed({**json.loads(path.read_text()), **each})))
            return sampled(folder)

        yield Case(kind="invented records", name=repr(each)[:60], words=make, must=False)
