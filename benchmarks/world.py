"""How fast the little world is drawn and read back, and how exactly: `python benchmarks/world.py`.

Writes benchmarks/world.json, with the machine named. One core; the rates are the best of several rounds,
because other programs on the machine only ever slow a round down.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from blip3o_mini.world import render, sample_scene
from blip3o_mini.world.parse import read


def machine() -> dict:
    """The processor's name, the number of cores, and the versions that matter."""
    name = platform.processor() or platform.machine()
    if (cpuinfo := Path("/proc/cpuinfo")).exists():
        lines = cpuinfo.read_text().splitlines()
        name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), name)
    versions = {"python": platform.python_version(), "numpy": np.__version__}
    return {"cpu": name, "cores": os.cpu_count(), **versions}


def best_rate(work, items, rounds: int) -> float:
    """Items per second in the fastest of several rounds."""
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        work(items)
        seconds.append(time.perf_counter() - start)
    return len(items) / min(seconds)


def exactness(scenes, images) -> dict:
    """How many readings equal their scene: offsets included, and identities alone."""
    readings = [read(image) for image in images]
    pairs = list(zip(readings, scenes))
    return {
        "scenes": len(scenes),
        "exact": sum([o.identity for o in r.objects] == [o.identity for o in s.objects] for r, s in pairs),
        "exact_with_offsets_and_background": sum(
            (r.objects, r.background) == (s.objects, s.background) for r, s in pairs
        ),
        "wrong_objects": sum(
            len({o.identity for o in r.objects} - {o.identity for o in s.objects}) for r, s in pairs
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=20_000)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    rng = np.random.default_rng(20_000)
    scenes = [sample_scene(rng, allow_heldout=True) for _ in range(options.scenes)]
    images = render(scenes)
    some = min(1000, options.scenes)
    result = {
        "machine": machine(),
        "pixels": images.shape[1],
        "render_per_second": round(best_rate(render, scenes[:some], rounds=7)),
        "parse_per_second": round(best_rate(lambda xs: [read(x) for x in xs], images[:some], rounds=5)),
        "parse": exactness(scenes, images),
    }
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
