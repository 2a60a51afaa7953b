"""Hostile pictures, tables, archives, masks, runs and states."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image

from hostile_base import DRAW, TUNE, change_state, changed_folder, one_file, put, read_state, trained_on
from hostile_files import (
    JUNK,
    ODD,
    Case,
    Words,
    headers,
    idx_bomb,
    images,
    mutations,
    odd,
    parquet_bomb,
    tar_of,
)


def data(base: Path, bombs: bool) -> Iterator[Case]:
    def taught(folder: Path) -> Words:
        return [
            "train-judge",
            "--data",
            str(folder / "in"),
            "--out",
            str(folder / "out"),
            "--epochs",
            "1",
            "--batch",
            "2",
            "--device",
            "cpu",
        ]

    first = "train/a/0.png"
    pictures = {
        f"picture: {key}": (lambda at, c=content: (at / first).write_bytes(c)) for key, content in images().items()
    }
    places = {
        f"picture: {how}": (lambda at, how=how: odd(at / first, how)) for how in ("FIFO", "loop", "nowhere", "device")
    }
    yield from changed_folder(
        "pictures",
        base / "pictures",
        taught,
        {
            **pictures,
            **places,
            "folder in itself": lambda at: (at / "train" / "a" / "again").symlink_to(at / "train"),
            "names that are not UTF-8": lambda at: (at / first).rename(at / "train" / "a" / "0\udcff.png"),
            "no class": lambda at: shutil.rmtree(at / "train" / "b"),
            "other sizes": lambda at: Image.new("L", (3, 3)).save(at / first),
        },
    )
    tables = {
        "out of the folder": b"file_name,label\n../../../../etc/passwd,1\n",
        "no name": b"label\n1\n",
        "escape": b"file_name,l\n\x1b[2J,1\n",
        "long number": b"file_name,label\na/0.png," + b"9" * 5000 + b"\n",
        "wide": b"file_name," + b",".join(b"c%d" % k for k in range(20_000)) + b"\n",
        **JUNK,
    }
    yield from changed_folder(
        "tables",
        base / "pictures",
        taught,
        {
            f"{kind}: {key}": (lambda at, c=content, kind=kind: (at / "train" / kind).write_bytes(c))
            for kind in ("metadata.csv", "metadata.jsonl", "metadata.parquet", "labels.csv", "list_attr_celeba.txt")
            for key, content in tables.items()
        },
    )
    for kind in ("x.parquet", "x.tar"):
        for key, content in JUNK.items():
            yield Case(kind="archives", name=f"{kind}: {key}", words=lambda at, k=kind, c=content: one_file(at, k, c))
    climbing = {"../../climbs.png": b"x", "/etc/x.png": b"x", "a.cls": b"\xff" * 9, "a.json": b"[" * 100_000}
    for name, content in climbing.items():
        yield Case(
            kind="archives",
            name=f"tar of {name}",
            words=lambda at, n=name, c=content: trained_on(at, "x.tar", lambda p: tar_of(p, {n: c})),
        )
    if bombs:
        yield Case(kind="bombs", name="Parquet", words=lambda at: trained_on(at, "x.parquet", parquet_bomb))
        yield Case(
            kind="bombs",
            name="idx",
            words=lambda at: trained_on(at, "in/train-images-idx3-ubyte.gz", idx_bomb, of="in"),
        )
    idx = {
        "no header": b"\0\0",
        "10^12 images": b"\0\0\x08\x03" + b"\x7f" * 12 + b"\0" * 99,
        "255 axes": b"\0\0\x08\xff" + b"\0\0\0\1" * 255 + b"\0",
    }
    for key, content in (idx | JUNK).items():
        yield Case(
            kind="archives",
            name=f"idx: {key}",
            words=lambda at, c=content: trained_on(
                at, "in/train-images-idx3-ubyte", lambda p: p.write_bytes(c), of="in"
            ),
        )
    for key, content in images().items():
        yield Case(
            kind="masks",
            name=key,
            words=lambda at, c=content: [
                "inpaint",
                "demo",
                "--mask",
                str(put(at / "m.png", c)),
                "--out",
                str(at / "out"),
            ],
        )


def runs(base: Path, each: int, seed: int) -> Iterator[Case]:
    def drawn(folder: Path) -> Words:
        return ["sample", str(base / "model"), "--out", str(folder / "in"), "--resume", *DRAW]

    def tuned(folder: Path) -> Words:
        return ["unlearn", str(base / "model"), "--out", str(folder / "in"), "--resume", *TUNE]

    yield from mutations("entries of a run", base / "drawn", "run.json", drawn, each=each, seed=seed)
    yield from mutations("entries of a run", base / "begun", "run.json", tuned, each=1, seed=seed)
    yield from changed_folder(
        "files of a run",
        base / "begun",
        tuned,
        {
            **{f"run.json: {how}": (lambda at, how=how: odd(at / "run.json", how)) for how in ODD},
            **{
                f"state: {how}": (lambda at, how=how: odd(at / "resume.safetensors", how))
                for how in ODD
                if how not in ("loop", "nowhere")
            },
            **{
                f"state: header: {k}": (lambda at, c=c: (at / "resume.safetensors").write_bytes(c))
                for k, c in headers().items()
            },
            "step 10^9": lambda at: change_state(at, run=torch.tensor([1e9, 0.1, 0.1], dtype=torch.float64)),
            "step -1": lambda at: change_state(at, run=torch.tensor([-1.0, 0.1, 0.1], dtype=torch.float64)),
            "step NaN": lambda at: change_state(at, run=torch.full((3,), torch.nan, dtype=torch.float64)),
            "no step": lambda at: change_state(at, run=torch.zeros(0)),
            "NaN": lambda at: change_state(
                at, **{k: v * torch.nan for k, v in read_state(at).items() if k.startswith("model.")}
            ),
            "other moments": lambda at: change_state(
                at, **{k: v[:3] for k, v in read_state(at).items() if k.endswith("exp_avg")}
            ),
            "keys": lambda at: change_state(at, replace=True, identity=read_state(at)["identity"]),
        },
    )
