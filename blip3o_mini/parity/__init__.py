"""Compare this package with numbers computed by the original implementation.

A folder holds pairs NAME.safetensors + NAME.json. The beginning of NAME tells the kind (`dit_`,
`flow_sampling_`, `flow_loss_`, …), the JSON holds the sizes, the safetensors the weights, inputs and the
original's results. Cases and runs are found by their key names, so a folder with other sizes, seeds and cases
is checked alike. What nothing looked at is listed as not checked or absent, never as passed.
"""

from __future__ import annotations

from pathlib import Path

from .condition import check_condition
from .fixture import Row, load
from .manifest import check_manifest
from .network import check_dit
from .path import check_loss, check_sampling
from .pictures import check_decoder
from .tower import check_tower
from .words import check_prompts, check_understanding

CHECKS = {
    "dit_": check_dit,
    "flow_sampling_": check_sampling,
    "flow_loss_": check_loss,
    "decoder_": check_decoder,
    "eva_clip_tower_": check_tower,
    "ar_condition_": check_condition,
    "understanding_image_": check_understanding,
}
LISTS = {"prompts_and_batches": check_prompts, "manifest_": check_manifest}  # a JSON file alone


def run(folder: str | Path) -> list[Row]:
    """Check every fixture in the folder; raises ValueError where the folder or a file cannot be read."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    names = sorted({path.stem for path in folder.iterdir() if path.suffix in (".json", ".safetensors")})
    known = {name: kind for name in names for kind in (*CHECKS, *LISTS) if name.startswith(kind)}
    if not known:
        kinds = ", ".join((*CHECKS, *LISTS))
        raise ValueError(f"{folder} holds no fixtures; their names begin with {kinds}")
    rows = []
    for name in names:
        kind = known.get(name)
        if check := (CHECKS | LISTS).get(kind):
            fixture = load(folder, name, has_tensors=kind in CHECKS)
            try:
                rows += check(fixture, folder)
            except RuntimeError as error:  # PyTorch's complaint about shapes
                problem = " ".join(str(error).split())
                raise ValueError(f"the tensors of {name} do not fit together: {problem}") from error
            unread = sorted(fixture.tensors.keys() - fixture.read)
            rows += [Row(name, f"{key}: not checked, unknown quantity") for key in unread]
        else:
            rows.append(Row(name, "not checked, unknown kind"))
    absent = [kind for kind in (*CHECKS, *LISTS) if kind not in known.values()]
    return rows + [Row(f"{kind}*", "absent") for kind in absent]


def failed(rows: list[Row]) -> bool:
    """Whether any comparison missed its tolerance; what was not compared does not count."""
    return any(row.passed is False for row in rows)


def format_table(rows: list[Row]) -> str:
    """The rows as a text table, with the numbers of passes and misses below."""
    words = {True: "pass", False: "MISS", None: ""}
    table = [("file", "quantity", "max error", "tolerance", "result")]
    for row in rows:
        numbers = ["" if value is None else f"{value:.1e}" for value in (row.max_error, row.tolerance)]
        table.append((row.file, row.quantity, *numbers, words[row.passed]))
    widths = [max(len(line[column]) for line in table) for column in range(5)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in table]
    lines.insert(1, "  ".join("-" * width for width in widths))
    passed, missed = (sum(row.passed is result for row in rows) for result in (True, False))
    rest = len(rows) - passed - missed
    return "\n".join([*lines, "", f"{passed} passed, {missed} missed, {rest} not checked or absent"])
