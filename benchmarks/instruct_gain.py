"""What the instruct stage adds: `python benchmarks/instruct_gain.py` (about 6 minutes on 2 cores).

Scores the shipped checkpoint as it is, and with the weights that it had before the instruct stage (kept in half
precision), on the same prompts and seeds; writes benchmarks/instruct_gain.json. The paper's authors report 5 to 7
points of GenEval for their 60,000 instruction pictures.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from world import machine

HERE = Path(__file__).resolve().parent
SUITES = ("geneval", "dense", "knowledge", "edit")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=HERE / "instruct_gain.json")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    from blip3o_mini import Blip3oMini
    from blip3o_mini.checkpoint import load_stage
    from blip3o_mini.evaluate import evaluate, format_scores, write_json

    model = Blip3oMini.from_pretrained("toy")
    told = {"seed": args.seed, "machine": machine(), "after": {}}
    for stage in ("instruct", "generation"):
        if stage == "generation":
            load_stage(model, stage)
        scores = evaluate(model, SUITES, seed=args.seed, progress=True)
        print(f"after the stage {stage}\n{format_scores(scores)}", flush=True)
        told["after"][stage] = scores["suites"]
    write_json(args.json, told)


if __name__ == "__main__":
    main()
