"""Write README's tables from measured figures: `python benchmarks/tables.py` (`--check` only compares).

Between `<!-- begin: NAME -->` and `<!-- end: NAME -->` everything is generated: no number there is typed by hand.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

from blip3o_mini import cost
from blip3o_mini.config import PRESETS

HERE = Path(__file__).resolve().parent
README = HERE.parent / "README.md"
ASKS = {
    "geneval": "pictures of prompts, every asserted fact holds", "dense": "long prompts, share of 4–8 facts that hold",
    "knowledge": "prompts that name things indirectly", "vqa": "questions about a picture",
    "caption": "long captions, every object right", "classify": "naming the object",
    "hallucination": "questions about absent objects", "edit": "the edit is there and the rest is untouched",
    "text": "questions without a picture", "reconstruct": "features of a real picture → decoder",
    "diversity": "different pictures for one prompt", "own_prompts": "pictures of prompts in strangers' words",
    "own_questions": "questions in strangers' words",
}  # fmt: skip


def interval(score: dict) -> str:
    return f"**{score['mean']:.2f}** ({score['low']:.2f}–{score['high']:.2f}, n {score['n']})"


def scores() -> str:
    """The table of all suites, and how the checkpoint was made."""
    data = json.loads((HERE / "toy_quality.json").read_text())
    lines = ["| suite | asks for | held-out | seen | baseline |", "|---|---|---|---|---|"]
    for name, suite in data["suites"].items():
        held, seen = suite["heldout"], suite["seen"]
        lines.append(f"| {name} | {ASKS[name]} | {interval(held)} | {interval(seen)} | {held['baseline']:.2f} |")
    stages = data["training"]["stages"]
    minutes = {name: stage["seconds"] / 60 for name, stage in stages.items()}
    told = ", ".join(f"{name} {value:.0f}" for name, value in minutes.items())
    threads = sorted({stage["threads"] for stage in stages.values()})
    machine = data["machine"]
    lines += [
        "",
        "Shares of right answers with 95 % intervals. Held-out prompts name combinations that training never showed;",
        "the baseline is the majority answer or chance. Written by `python benchmarks/toy_quality.py` on "
        f"{machine['cpu']}, {machine['cores']} cores.",
        f"Trained from nothing by `{data['training']['command']}`:",
        f"{sum(minutes.values()):.0f} minutes of training steps ({told}), threads: {', '.join(map(str, threads))}.",
        data["training"]["note"],
    ]
    return "\n".join(lines)


def sizes() -> str:
    """Parameters, memory and arithmetic of every preset, predicted by cost.py."""
    return cost.table(PRESETS.values())


TABLES = {"scores": scores, "sizes": sizes}


def filled(text: str) -> str:
    """The README with every table made anew."""
    for name, make in TABLES.items():
        block = f"<!-- begin: {name} -->\n{make()}\n<!-- end: {name} -->"
        text, found = re.subn(f"<!-- begin: {name} -->.*?<!-- end: {name} -->", lambda _, b=block: b, text, flags=re.S)
        if found != 1:
            raise ValueError(f"README.md holds {found} places for the table {name!r}; expected 1")
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit 1 when README.md is not what this would write")
    args = parser.parse_args()
    text = README.read_text()
    if args.check:
        return int(filled(text) != text)
    README.write_text(filled(text))
    return 0


if __name__ == "__main__":
    sys.exit(main())
