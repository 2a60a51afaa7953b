"""What a grid's results are beside the paper's tables: ours with intervals, the paper's under them.

All of it is made from ``results.json``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ...metrics import quantities
from ...metrics.measured import Measured
from ...report.tables import Sheet
from .printed import Edit, Printed
from .report import (
    Bounds,
    Results,
    average,
    bent,
    classes,
    draws,
    edited,
    forgotten,
    frechet,
    likelihood,
    methods,
    name_of,
    parts,
    ratio,
    right_on,
    rows,
    run,
    same_class,
    share,
    where,
)
from .tables import TABLES, Part, Table

MISSING = "not run yet"
SIDES = {"retain": "D_g", "forget": "D_f"}
EDITS = {"frechet": "Fréchet", "features": "Distance", "psnr": "PSNR", "ssim": "SSIM"}
"""What is told of edited images, beside whether they kept their class."""


def sheets(results: Results) -> list[Sheet]:
    """Each of the paper's tables, then what it does not have: quality, what was flagged, the judge."""
    found = []
    for name in results["tables"]:
        table = TABLES[name]
        found += [sheet for part in table.parts for sheet in _compared(results, table, part)]
    made = [part for part in parts(results) if len(run(results, part)) > 1]
    found += [_quality(results, part) for part in made]
    found += [sheet for part in made if "unseen" in part.methods for sheet in _flagged(results, part)]
    return [*found, _judge(results), _confusion(results)]


def _compared(results: Results, table: Table, part: Part) -> list[Sheet]:
    title = f"{table.title.split(':')[0].split(' (')[0]}, {where(part)}"
    if part.edits:
        return [_edited(results, part, title, edit) for edit in part.edits]
    bare = not part.rates and not part.nll  # Of a part of which the paper prints nothing all is shown.
    found = [_rates(results, part, title)] if part.rates or bare else []
    if part.nll or bare:
        found.append(_likelihoods(results, part, title))
    note = " ".join([*(["The paper prints nothing of these models."] if bare else []), table.note])
    return [replace(sheet, legend=f"{sheet.legend} {note}".rstrip()) for sheet in found]


def _rates(results: Results, part: Part, title: str) -> Sheet:
    names, lines = methods(results, part), []
    for group in results["request"]["groups"]:
        wanted = classes(results, group)
        for draw in draws(results):
            cells = [_text(share(results, part, name, wanted, draw)) for name in names]
            lines.append([f"{group}, {draw}", *cells])
        if group in part.rates:
            lines.append([f"{group}, paper", *(_printed(part, part.rates[group], name) for name in names)])
    samplers = {1: "one sampler", 2: "two samplers"}[len(draws(results))]
    legend = f"Unlearning ratio in %, with its 95 % interval, by {samplers}."
    return Sheet(title=f"{title}: unlearning ratio", headings=["", *map(name_of, names)], rows=lines, legend=legend)


def _likelihoods(results: Results, part: Part, title: str) -> Sheet:
    names, lines = methods(results, part), []
    for which, side in SIDES.items():
        measured = [likelihood(results, part, name, which) for name in names]
        lines += [[side, *map(_bits, measured)], [f"{side}, change at twice the steps", *map(_change, measured)]]
        if part.nll:
            printed = part.nll["retain" if which == "retain" else "forget"]
            lines.append([f"{side}, paper", *(_printed(part, printed, name) for name in names)])
    audit = results["budget"]["audit"]
    seeds = any(len(rows(results, part, name)) > 1 for name in names)
    over = " (over the seeds, if that is more)" if seeds else ""
    legend = (
        f"Bits/dim of {audit['nll_images']} test images of each set, ± 1.96 standard errors over the images{over}; "
        f"{audit['nll_check']} of them again with twice the steps. † fails this check: not resolved."
    )
    return Sheet(title=f"{title}: likelihood", headings=["", *map(name_of, names)], rows=lines, legend=legend)


def _edited(results: Results, part: Part, title: str, edit: Edit) -> Sheet:
    names = methods(results, part)
    ran = {name: found for name in names if (found := edited(results, part, name, edit)) is not None}
    lines = []
    for which, side in SIDES.items():
        clean = [quantities.RETAINED.share(each[which]["clean"], each[which]["n"]).text() for each in ran.values()][:1]
        ours = [_text(same_class(results, part, name, edit, which)) for name in names]
        lines += _beside([f"ACC of {side}, %", *(clean or [MISSING]), *ours], part, edit, which, names)
    for key, what in EDITS.items():
        values = [ran[name]["retain"][key] if name in ran else None for name in names]
        lines += _beside([f"{what} of D_g", "", *map(_number, values)], part, edit, key, names)
    how = "Half of each image is hidden and filled in" if edit == "inpaint" else "Each image is rebuilt from its latent"
    legend = (
        f"{how}. ACC: the share that the judge gives their own label, with its 95 % interval; of {_images(ran)} test "
        "images of each set, by the first seed. Fréchet and distance: between edited images and their originals, in "
        "the judge's features (cosine, in hundredths); the paper's are FID and CLIP's. PSNR (dB) and SSIM over whole "
        "images. ±: 1.96 standard errors."
    )
    return Sheet(title=title, headings=["", "originals", *map(name_of, names)], rows=lines, legend=legend)


def _beside(line: list[str], part: Part, edit: Edit, key: str, names: list[str]) -> list[list[str]]:
    """A line of ours, and the paper's under it if it prints one."""
    if key not in part.edits[edit]:
        return [line]
    printed = part.edits[edit][key]
    what = {"frechet": "FID of D_g", "features": "CLIP of D_g"}.get(key, line[0])
    return [line, [f"{what}, paper", "", *(_printed(part, printed, name) for name in names)]]


def _images(ran: Mapping[str, Results]) -> str:
    return next((str(each["retain"]["n"]) for each in ran.values()), "no")


def _number(found: Any) -> str:
    """A mean with its standard error, or a number without one."""
    if found is None:
        return MISSING
    if not isinstance(found, Mapping):
        return f"{found:.1f}"
    error = "" if found["stderr"] is None else f" ± {1.96 * found['stderr']:.2f}"
    return f"{found['value']:.2f}{error}"


def _quality(results: Results, part: Part) -> Sheet:
    lines = []
    for name in run(results, part):
        for draw in draws(results):
            made = [row["made"] for row in rows(results, part, name)]
            seconds = [one["seconds"] for one in made]
            lines.append(
                [
                    name_of(name),
                    draw,
                    _text(ratio(results, part, name, draw)),
                    _text(share(results, part, name, ["junk"], draw)),
                    f"{frechet(results, part, name, draw):.1f}",
                    _percent(bent(results, part, name, draw)),
                    f"{made[0]['settings']['steps']:,}",
                    "–" if None in seconds else f"{average(seconds):.0f}",
                ]
            )
    return Sheet(
        title=f"Beside the paper's columns: {where(part)}",
        headings=["", "sampler", "UR %", "junk %", "Fréchet", "TV %", "steps", "seconds"],
        rows=lines,
        legend=(
            "Junk: neither a kept class nor one to forget. Fréchet: distance in the judge's features to the "
            "retained test images; it is no FID, and falls with the number of samples. TV: distance of the kept "
            "classes' shares from those of real retained images. Seconds: of training, with the time to compile."
        ),
    )


def _judge(results: Results) -> Sheet:
    judge, lines = results["judge"], []
    for name, title in (
        ("retain", "test images to retain"),
        ("forget", "test images to forget"),
        ("retained training images", "training images to retain"),
    ):
        real = judge["real"][name]
        hits = quantities.UR.share(sum(real["counts"][f] for f in forgotten(results)), real["n"])
        junk = quantities.JUNK.share(real["counts"]["junk"], real["n"])
        lines.append([title, str(real["n"]), hits.text(), junk.text(), f"{real['frechet']:.1f}"])
    return Sheet(
        title="The judge on real images",
        headings=["", "images", "called a class to forget, %", "called junk, %", "Fréchet"],
        rows=lines,
        legend=(
            f"It is right on {judge['accuracy']:.1%} of all test images, and on "
            f"{', '.join(f'{right:.1%} of {name}' for name, right in right_on(results).items())}. What it calls a "
            "class to forget among test images to retain is the floor under every unlearning ratio here; of training "
            "images it knows the labels."
        ),
    )


def _confusion(results: Results) -> Sheet:
    judge = results["judge"]
    names = [*judge["names"], "junk"]
    return Sheet(
        title="The judge's confusion",
        headings=["is, is called", *names],
        rows=[[name, *map(str, line)] for name, line in zip(names, judge["confusion"], strict=True)],
        legend="Counts of all test images, and of junk made from them.",
    )


def _flagged(results: Results, part: Part) -> list[Sheet]:
    """What Unseen still generates, where it was kept."""
    row = rows(results, part, "unseen")[0] if rows(results, part, "unseen") else None
    found = row["draws"][draws(results)[0]].get("flagged") if row is not None else None
    if not found:
        return []
    return [
        Sheet(
            title=f"What Unseen still generates: {where(part)}",
            headings=["sample", "called", "confidence %", "nearest training image", "its own nearest"],
            rows=[
                [
                    str(one["sample"]),
                    one["called"],
                    f"{100 * one['confidence']:.1f}",
                    f"{one['distance']:.1f}",
                    f"{one['among_training']:.1f}",
                ]
                for one in found
            ],
            legend=(
                "The samples that the judge is surest to be of a class to forget; root mean square distances over "
                "pixels, of 255, to the nearest forget image of the training set, and from that to the nearest other."
            ),
        )
    ]


def _text(found: Measured | None) -> str:
    return MISSING if found is None else found.text()


def _percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{100 * share:.1f}"


def _bits(found: Bounds | None) -> str:
    if found is None:
        return MISSING
    return f"{found.value:.2f} ± {found.high - found.value:.2f}{'' if found.reliable else ' †'}"


def _change(found: Bounds | None) -> str:
    return "" if found is None else f"{found.change:+.3f}"


def _printed(part: Part, values: Printed, method: str) -> str:
    if method not in part.methods:
        return ""
    value = values[part.methods.index(method)]
    return "/" if value is None else f"{value:g}"
