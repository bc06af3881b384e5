"""README's gallery: `python benchmarks/gallery.py` draws a fixed page of good and failed samples (under a minute).

Nothing is chosen by hand: the first held-out prompts of the geneval suite, four of every category, and the first
held-out edits, one of every kind, each from the noise that the suite itself starts from. The checker's verdict
stands below every picture. Writes notebooks/figures/gallery.png.
"""

from __future__ import annotations

import argparse
from pathlib import Path

ROWS = 4  # prompts of every category
GOOD, FAILED = "#00835f", "#b3261e"
TITLES = {
    "single_object": "one object", "two_object": "two objects", "counting": "counting", "colors": "colour",
    "position": "position", "color_attr": "two colours",
}  # fmt: skip


def drawn(model, seed: int) -> list[tuple]:
    """(heading, picture, words, is_good) of the prompts, one category a column."""
    from blip3o_mini.evaluate import generator, geneval
    from blip3o_mini.evaluate.trial import noise
    from blip3o_mini.world import read

    asked = geneval.prompts(ROWS * len(geneval.TAGS), generator("geneval", "heldout", seed), is_heldout=True)
    pictures = model.generate([facts["prompt"] for facts in asked], generator=noise(0, len(asked), seed))
    return [
        (TITLES[facts["tag"]] if k < len(geneval.TAGS) else "", picture, facts["prompt"],
         not geneval.failures(facts, read(picture)))
        for k, (facts, picture) in enumerate(zip(asked, pictures))
    ]  # fmt: skip


def edited(model, seed: int) -> list[tuple]:
    """The same of the edits: a row of the pictures before, then one of those after."""
    from blip3o_mini import world
    from blip3o_mini.evaluate import generator, pictured
    from blip3o_mini.evaluate.trial import noise, pictures_of, shows

    items = pictured.edit_items(len(world.EDIT_KINDS), generator("edit", "heldout", seed), heldout=True)
    before = pictures_of([scene for scene, *_ in items])
    after = model.edit_batch(before, [words for _, words, *_ in items], generator=noise(0, len(items), seed))
    verdicts = [shows(world.read(picture), wanted) for picture, (_, _, wanted, _) in zip(after, items)]
    shown = [(f"edit: {kind}", picture, "given", None) for picture, (*_, kind) in zip(before, items)]
    return shown + [("", picture, words, v) for picture, (_, words, *_), v in zip(after, items, verdicts)]


def page(tiles: list[tuple], columns: int):
    """A figure with a heading above the first of a column and a verdict below every picture."""
    from blip3o_mini.lab.show import INK, figure_of

    mark = {True: "✔ ", False: "✘ ", None: ""}
    titles = [mark[good] + words for *_, words, good in tiles]
    figure = figure_of([tile[1] for tile in tiles], titles, columns=columns, size=1.4)
    for axes, (heading, _, _, good) in zip(figure.axes, tiles):
        axes.title.set_color({True: GOOD, False: FAILED, None: INK}[good])
        if heading:
            axes.text(0.5, 1.03, heading, transform=axes.transAxes, ha="center", va="bottom", weight="bold", color=INK)
    return figure


def told(tiles: list[tuple]) -> str:
    """How many of them the checker passes: also the alternative text."""
    verdicts = [good for *_, good in tiles if good is not None]
    return f"{sum(verdicts)} of {len(verdicts)} pass the checker"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="toy")
    parser.add_argument("--seed", type=int, default=0, help="that of the suites (default: 0)")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()

    from blip3o_mini import Blip3oMini
    from blip3o_mini.lab.show import png_of

    out = args.out or Path(__file__).resolve().parent.parent / "notebooks" / "figures" / "gallery.png"
    model = Blip3oMini.from_pretrained(args.checkpoint)
    prompts, edits = drawn(model, args.seed), edited(model, args.seed)
    out.write_bytes(png_of(page(prompts + edits, columns=len(TITLES))))
    print(f"{out.name}: prompts, {told(prompts)}; edits, {told(edits)}")


if __name__ == "__main__":
    main()
