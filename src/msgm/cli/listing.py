"""The command that lists what there is: methods."""

from __future__ import annotations

import inspect

from ..forgetting.methods import DEFAULT, METHODS, PARTS
from ..sampling.filters import FILTERS


def methods() -> None:
    """The unlearning methods there are, and the filters, which train nothing."""
    from rich.console import Console
    from rich.table import Column, Table

    shown = Table(
        Column("Method", no_wrap=True), "What it asks", Column("Needs", max_width=18), "Bounded", show_lines=True
    )
    for name, make in METHODS.items():
        method = make()
        taken = "  ".join(f"{k}={p.default}" for k, p in inspect.signature(make).parameters.items())
        told = inspect.cleandoc(make.__doc__ or "").partition("\n\nArgs:")[0]
        about = [" ".join(told.split()), *([f"[cyan]{taken}[/]"] if taken else [])]
        shown.add_row(
            name + (" *" if name == DEFAULT else ""),
            "\n".join([*about, f"[dim]{method.paper}[/]"]),
            "\n".join([*method.needs, *(["trained model"] if method.fine_tunes else [])]) or "-",
            "yes" if method.bounded else "no",
        )
    console = Console()
    console.print(shown)
    console.print("* the default. Options are given as --method.NAME VALUE, in Python as keywords.")
    console.print("One that needs a trained model is for unlearn; the others are for train as well.")
    parts = ["Parts to put into any of them, as --method.combine pcgrad --method.combine.alpha 0.7:"]
    console.print("\n".join(parts + [f"  {role}: {', '.join(known)}" for role, known in PARTS.items()]))
    filters = Table("Filter", "What it does", "Needs", "Options (default)")
    for name, made in FILTERS.items():
        options = ", ".join(
            f"{k}={'auto' if p.default is None else p.default}"
            for k, p in inspect.signature(made).parameters.items()
            if p.default is not p.empty
        )
        filters.add_row(name, first_line(made), ", ".join(f"--{key}" for key in made.needs), options)
    console.print(filters)
    console.print("Used by msgm sample --filter NAME and msgm evaluate --filter NAME")


def first_line(thing: object) -> str:
    """The first line of what is documented of it."""
    return (thing.__doc__ or "").strip().partition("\n")[0]
