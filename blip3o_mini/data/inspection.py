"""What is in the data: sizes, captions, everything mended or unusable, and a page of pictures drawn at random."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .features import features_path
from .opening import Source, is_remote
from .records import Fault
from .samples import Sample
from .stream import Recipe, Stream
from .writing import checksum

SHOWN, COLUMNS, CELL = 24, 6, 160  # pictures of the sheet, and their size
EXAMPLES = 3  # faults of a kind that the report spells out


@dataclass
class Statistics:
    """What is counted while samples pass; memory does not grow with their number."""

    samples: int = 0
    widths: Counter = field(default_factory=Counter)
    heights: Counter = field(default_factory=Counter)
    words: Counter = field(default_factory=Counter)
    kinds: Counter = field(default_factory=Counter)  # of faults
    examples: list[Fault] = field(default_factory=list)
    sheet: list[tuple[Image.Image, str]] = field(default_factory=list)
    seed: int = 0

    def add(self, sample: Sample) -> None:
        self.samples += 1
        wide, high = sample.image.size
        self.widths[wide] += 1
        self.heights[high] += 1
        self.words[len(sample.caption.split())] += 1
        self._show(sample)

    def _show(self, sample: Sample) -> None:
        """Every sample has the same chance to stand on the sheet (reservoir sampling)."""
        place = self.samples - 1
        if place >= SHOWN:
            place = int(np.random.default_rng([self.seed, 17, place]).integers(self.samples))
        if place < SHOWN:
            small = sample.image.copy()
            small.thumbnail((CELL, CELL))
            self.sheet[place : place + 1] = [(small, sample.caption)]

    def miss(self, fault: Fault) -> None:
        self.kinds[fault.kind] += 1
        if self.kinds[fault.kind] <= EXAMPLES:
            self.examples.append(fault)


def inspect(
    sources: Sequence[Source], *, sheet: Path | None = None, seed: int = 0, workers: int = 0,
    report: Callable[[Fault], object] = lambda fault: None,
) -> str:  # fmt: skip
    """A report on everything in some sources; `report` is called with every fault, `sheet` is drawn into."""
    found = Statistics(seed=seed)

    def miss(fault: Fault) -> None:
        found.miss(fault)
        report(fault)

    recipe = Recipe(tuple(sources), lanes=max(1, workers), shuffle=0, passes=1, limit=1.0)
    stream = Stream(recipe, report=miss, workers=workers)
    for sample in stream:
        found.add(sample)
    for source in sources:
        for fault in compare(source):
            miss(fault)
    if sheet and found.sheet:
        draw_sheet(found.sheet).save(sheet)
    mended = {name: n for name, n in stream.counts.items() if name not in (*found.kinds, "samples")}
    return "\n".join([*_lines(sources, found, mended), *([f"contact sheet: {sheet}"] if sheet and found.sheet else [])])


def _lines(sources: Sequence[Source], found: Statistics, mended: dict[str, int]) -> list[str]:
    shards = sum(len(source.shards) for source in sources)
    lines = [f"{', '.join(s.name for s in sources)}: {shards} shards, {found.samples} readable samples"]
    if found.samples:
        lines += [f"width {_range(found.widths)} px, height {_range(found.heights)} px"]
        lines += [f"caption length in words: {_range(found.words)}"]
    lines += [f"mended: {count} × {name}" for name, count in sorted(mended.items())]
    if not found.kinds:
        return [*lines, "no problems found"]
    for kind, count in found.kinds.most_common():
        lines += [f"problems: {count} × {kind}"]
        lines += [f"  {fault}" for fault in found.examples if fault.kind == kind]
        lines += [f"  … and {count - EXAMPLES} more in the log (--log FILE)"] if count > EXAMPLES else []
    return lines


def _range(counts: Counter) -> str:
    """Smallest, largest and median of numbers that were counted."""
    values = sorted(counts)
    below, half = 0, sum(counts.values()) / 2
    for value in values:
        below += counts[value]
        if below >= half:
            break
    return f"{values[0]} to {values[-1]}, median {value}"


def compare(source: Source) -> list[Fault]:
    """What the manifest beside the shards says otherwise: files missing or changed since they were written."""
    if source.kind != "tar" or is_remote(source.shards[0]):
        return []
    found = []
    for folder in sorted({Path(shard).parent for shard in source.shards}):
        path = folder / "manifest.json"
        if not path.is_file():
            continue  # published data has none; a shard cut off is noticed all the same, a missing one is not
        try:
            told = json.loads(path.read_text())
            found += [fault for name in sorted(told) for fault in _compare(folder / name, told[name])]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            found.append(Fault("damaged manifest", str(path), "", f"cannot be read ({error})"))
    return found


def _compare(shard: Path, told: dict) -> list[Fault]:
    sums = {shard: told["sha256"]}
    if "features" in told:
        sums[features_path(shard)] = told["features"]["sha256"]
    found = []
    for path, expected in sums.items():
        if not path.is_file():
            found.append(Fault("missing file", str(path), "", "is missing"))
        elif checksum(path) != expected:
            found.append(Fault("changed file", str(path), "", "has changed since it was written"))
    return found


def draw_sheet(pictures: Sequence[tuple[Image.Image, str]]) -> Image.Image:
    """Pictures in whole, in rows, the first words of each caption below."""
    font, gap, text = ImageFont.load_default(11), 8, 30
    rows = -(-len(pictures) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * (CELL + gap) + gap, rows * (CELL + text + gap) + gap), "white")
    draw = ImageDraw.Draw(sheet)
    for k, (image, caption) in enumerate(pictures):
        left, top = gap + k % COLUMNS * (CELL + gap), gap + k // COLUMNS * (CELL + text + gap)
        sheet.paste(image, (left + (CELL - image.width) // 2, top + (CELL - image.height) // 2))
        draw.multiline_text((left, top + CELL + 2), _wrapped(caption, font), "black", font)
    return sheet


def _wrapped(caption: str, font) -> str:
    """As many words of a caption as fit into two lines below a picture."""
    lines = ["", ""]
    words = caption.split()
    for k in (0, 1):
        while words and font.getlength(f"{lines[k]} {words[0]}") <= CELL - (8 if k else 0):
            lines[k] = f"{lines[k]} {words.pop(0)}".strip()
    return "\n".join(lines) + ("…" if words else "")
