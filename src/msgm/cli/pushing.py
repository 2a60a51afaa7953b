"""The command that brings a model to the hub: push."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from ..errors import UserError
from ..experiments.push.main import prepare, upload
from ..folders import vacant
from .reading import read_model


def push(
    model: str,
    *,
    licence: str,
    to: str | None = None,
    base_model: str | None = None,
    audit: Path | None = None,
    private: bool = False,
    dry_run: bool = False,
    out: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Bring a model to the hub, with a card made from its record and its audit.

    With --dry-run the folder is written to --out, to be looked at, and nothing leaves this machine.

    Args:
        model: a model folder of ours.
        licence: of the weights, by the hub's name of it, as apache-2.0.
        to: OWNER/NAME on the hub.
        base_model: the hub's name of the model that it was made from; by default as its first command has it.
        audit: audit.json of this model; by default the one that its record names, if it is there.
        private: make the repository a private one.
        dry_run: write the folder only.
        out: folder of --dry-run.
        overwrite: replace what is in the output folder.
    """
    if dry_run == (out is None):
        raise UserError("--dry-run and --out FOLDER go together: say where to write, or leave both out")
    if to is None and not dry_run:
        raise UserError("say where on the hub: --to OWNER/NAME")
    if out is not None:
        vacant(out, overwrite=overwrite)
    read = read_model(model)
    named = Path((read.record.get("audit") or {}).get("file", ""))
    chosen = {
        "licence": licence, "name": to or Path(model).resolve().name, "base": base_model,
        "audit": audit or (named if named.is_file() else None),
    }  # fmt: skip
    if out is not None:
        prepare(read, out, **chosen)  # type: ignore[arg-type]
        print(f"saved {out}: look at {out / 'README.md'}; nothing was uploaded")
        return
    assert to is not None
    with TemporaryDirectory() as folder:
        prepare(read, Path(folder), **chosen)  # type: ignore[arg-type]
        print(f"uploaded {upload(Path(folder), to, private=private)}")
