"""Write the tables of benchmarks/README.md and docs/running.md from benchmarks/results: scripts/make_benchmarks.py.

With --check nothing is written: the exit status says whether the table is up to date.
"""

import json
import sys
from pathlib import Path
from typing import Any

from blocks import ROOT, fill, table

Found = dict[str, Any]


def nll(found: Found) -> str:
    ours = " ".join(str(found["msgm"][key]) for key in ("solver", "steps", "clock", "probes"))
    reference = found["reference"]
    return (
        f"{ratio(found)} at an rmse of {found['rmse_bits_per_dim']:.3f} bits/dim ({ours}; the reference settings "
        f"average {reference['repeats_needed']} runs of {reference['nfe']:.0f} evaluations); "
        f"one run of each: {found['ratio_of_single_runs']:.1f}"
    )


def sampling(found: Found) -> str:
    parts = []
    for name, title in (("", "Standard"), ("_unlearned", "unlearned")):
        if f"ratio{name}" not in found:
            continue
        for kind in ("ode", "sde"):
            best = found.get(f"{kind}{name}")
            said = f"{ratio(best)} ({best['sampler']}, {best['nfe']:.0f} evaluations)" if best else "none as good"
            parts.append(f"{title}, {kind.upper()}: {said}")
        if (gap := found.get(f"forget_share_ode_minus_sde{name}")) is not None:
            value, low, high = (f"{100 * gap[key]:+.1f}" for key in ("value", "low", "high"))
            parts.append(f"share of forget classes by ODE minus by SDE {value} [{low}, {high}] points")
    return "; ".join(parts)


def training(found: Found) -> str:
    def said(row: dict[str, float]) -> str:
        bound = row["plain ms"] / row["bare ms"]
        return (
            f"**{row['plain/msgm']:.2f}** [{row['least, most of that']}] at batch {row['batch']} (the bare network: "
            f"{bound:.2f}), **{row['msgm/bare']:.2f}** [{row['least, most']}] of the bare network's time"
        )

    rows = [row for row in found["tables"]["One step"] if row["case"] == "unlearn, orthogonal"]
    return f"faster than the plain loop {'; '.join(map(said, rows))}"


def unlearning(found: Found) -> str:
    times = {row["recipe"]: row["seconds_both"] for row in found["tables"]["Recipes"]}
    reached = ", ".join(f"{name} {t:.0f} s" for name, t in sorted(times.items(), key=lambda i: i[1] or 0) if t)
    return f"{reached or 'none'}; of {len(times)} recipes"


def scaling(found: Found) -> str:
    return "; ".join(
        f"{what}: " + ", ".join(f"{kind} {p:.2f}" for kind, p in powers.items())
        for what, powers in found["power"].items()
        if powers
    )


def memory(found: Found) -> str:
    few, many = (found["options"][name] for name in ("few", "many"))
    return (
        f"**{found['above_mb']:.0f} MB** more with {many:,} images than with {few:,}; the cache opens in "
        f"{found['second_open_seconds']:.1f} s"
    )


def sequential(found: Found) -> str:
    ignored = [row["first"] for row in found["tables"]["Requests"] if row["earlier"] == "ignore"]
    apart = f"; with the earlier request ignored {', '.join(ignored)}" if ignored else ""
    stays = f"**{found['within']}** of {found['seeds']} seeds"
    return f"the class forgotten first stays forgotten after the second request in {stays}{apart}"


def throughput(found: Found) -> str:
    share = f"{found['share_of_it_in_training']:.1%} of the {found['tflops_of_a_matrix_product']:.0f} TFLOP/s"
    return (
        f"{found['machine']['device']}, {found['machine']['precision']}: training "
        f"**{found['images_per_second']:,.0f}** images/s ({share} of a matrix product), "
        f"**{found['samples_per_second']:,.0f}** samples/s, **{found['likelihoods_per_second']:.1f}** likelihoods/s"
    )


def faults(found: Found) -> str:
    by = found["tables"]["Kills by command"]
    return f"**{found['faults']}** faults of {found['kills']} kills and signals over {len(by)} commands"


def hostile(found: Found) -> str:
    return (
        f"**{found['faults']}** faults of {found['inputs']} inputs, {found['refused']} of them refused; at most "
        f"{found['processor_seconds_at_most']:.1f} s and {found['memory_at_most_mib']} MiB"
    )


def soak(found: Found) -> str:
    return (
        f"**{found['mb_an_hour']:+.1f}** [{found['least']:+.1f}, {found['most']:+.1f}] MB an hour over "
        f"{found['steps']:,} steps and {found['checkpoints']:,} checkpoints"
    )


def processes(found: Found) -> str:
    rows = found["tables"]["One step"]
    return "; ".join(
        f"{row['recipe']} at batch {row['batch']}: **{row['times faster']:.2f}** [{row['least, most']}]" for row in rows
    )


def determinism(found: Found) -> str:
    rows = found["tables"]["One thing changed"]
    equal = [row["changed"] for row in rows if all(v == "to the bit" for k, v in row.items() if k != "changed")]
    return f"of {len(rows)} changes, to the bit: {', '.join(equal)}"


def paper(found: Found) -> str:
    return "; ".join(
        f"{row['process']} {row['data']} ({row['parameters, M']:.0f} M parameters), {row['batch']} images: "
        f"{row['train s']:.0f} s to train, {row['fine-tune s']:.0f} s to fine-tune, {row['memory, GiB']} GiB"
        for row in found["tables"]["A step of each"]
    )


def ratio(found: Found) -> str:
    return f"**{found['ratio']:.1f}** [{found['least']:.1f}, {found['most']:.1f}]"


KINDS = (
    nll, sampling, training, processes, unlearning, sequential, memory, scaling, throughput, soak, determinism, paper,
    faults, hostile,
)  # fmt: skip
SAID = {each.__name__: each for each in KINDS}
UNIT = {
    "nll": "times faster",
    "sampling": "times faster",
    "training": "times",
    "processes": "times faster with two",
    "unlearning": "seconds to both goals",
    "sequential": "requests one after another",
    "memory": "peak memory",
    "scaling": "powers of growth",
    "throughput": "of one GPU",
    "soak": "growth of memory",
    "determinism": "what is equal",
    "paper": "a step of the paper's networks",
    "faults": "kills",
    "hostile": "hostile inputs",
}


def rows(folder: Path) -> list[list[str]]:
    found = [(path, json.loads(path.read_text())) for path in folder.glob("*.json")]
    order = list(SAID)
    return [
        [
            f"[{each['benchmark']}](results/{path.with_suffix('.md').name}), {Path(each['model']).name}",
            UNIT[each["benchmark"]],
            SAID[each["benchmark"]](each),
            f"{each['date'][:10]}, `{str(each['commit'])[:7]}`",
        ]
        for path, each in sorted(found, key=lambda pair: (order.index(pair[1]["benchmark"]), pair[0]))
        if not each["quick"]
    ]


def main() -> int:
    page = ROOT / "benchmarks/README.md"
    heads = ("benchmark, model", "what", "measured [least, most of the rounds]", "run")
    results, check = page.parent / "results", "--check" in sys.argv
    wrong = fill(page, {"results": table(heads, rows(results))}, check=check)
    return fill(ROOT / "docs/running.md", {"determinism": equal(results)}, check=check) or wrong


def equal(folder: Path) -> str:
    """What the last of its reports says is equal to the bit, and what to rounding."""
    found = json.loads(max(folder.glob("determinism-*.json")).read_text())["tables"]["One thing changed"]
    return table(list(found[0]), [list(row.values()) for row in found])


if __name__ == "__main__":
    raise SystemExit(main())
