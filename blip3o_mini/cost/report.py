"""The costs of a model for people: a readable page for `blip3o-mini info`, a row per preset for the README."""

from __future__ import annotations

from collections.abc import Iterable

from ..config import ModelConfig
from .totals import (
    MACHINES,
    Memory,
    costs,
    default_dtype,
    fits,
    generation_batch,
    generation_flops,
    inference_memory,
    inference_parameters,
    parameters,
    picture_flops,
    prompt_tokens,
    reading_flops,
    training_memory,
    word_flops,
)

ROLES = {
    "vision": "pictures → features",
    "backbone": "text, pictures → text, condition",
    "queries": "what the condition is read at",
    "dit": "noise, condition → features",
    "decoder": "features → pixels",
}
REMARKS = (
    "The last column adds 1 GB for Python and its libraries. Training means the generation stage: queries and",
    "DiT learn, the backbone is frozen, features are cached. A laptop gives 70 % of its memory, a GPU 92 %.",
)
SCALES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def describe(config: ModelConfig) -> str:
    """Everything about one model, as a page of text."""
    return "\n".join([*_parameters(config), "", *_compute(config), "", *_memory(config)])


def _parameters(config: ModelConfig) -> list[str]:
    counts, finer = parameters(config), {name: cost.parameters for name, cost in costs(config).items()}
    needed = inference_parameters(config)
    lines = [f"{config.name}: {in_words(needed)} parameters to draw and to answer", ""]
    lines.append(f"{'part':<22}{'parameters':>16}{'float32':>11}{'bfloat16':>11}")
    for part, role in ROLES.items():
        lines.append(_line(part, counts[part], role))
        inside = {name: count for name, count in finer.items() if name.startswith(f"{part}.") and count}
        lines += [_line(f"  {name.partition('.')[2]}", n) for name, n in sorted(inside.items()) if len(inside) > 1]
    lines.append(_line("all", counts["total"]))
    if needed < counts["total"]:
        lines.append(_line("all but vision", needed, "vision serves only training here"))
    return lines


def _line(name: str, count: int, role: str = "") -> str:
    return f"{name:<22}{count:>16,}{size(4 * count):>11}{size(2 * count):>11}   {role}".rstrip()


def _compute(config: ModelConfig) -> list[str]:
    steps, queries = picture_flops(config), config.backbone.num_queries
    guided = "" if config.guidance_scale == 1 else ", each with and without the prompt"
    rows = [
        ("draw: prompt → condition", steps["backbone"], f"{prompt_tokens(config)} tokens, {queries} of them queries"),
        ("  condition → features", steps["dit"], f"{config.steps} steps{guided}"),
        ("  features → pixels", steps["decoder"] + steps.get("vae", 0), f"{config.decoder.steps} steps"),
        ("  one picture", steps["total"], ""),
        ("read one picture", reading_flops(config), ""),
        ("one more word of an answer", word_flops(config), ""),
        ("train on one sample", generation_flops(config), "generation stage, features cached"),
    ]  # fmt: skip
    lines = [f"{'arithmetic':<28}{'operations':>12}   a multiplication and an addition count as 2"]
    return lines + [f"{name:<28}{short(flops) + 'FLOP':>12}   {note}".rstrip() for name, flops, note in rows]


def _memory(config: ModelConfig) -> list[str]:
    dtype = default_dtype(config)
    lines = [f"{'memory, predicted':<28}{'weights':>10}{'optimizer':>11}{'values':>10}{'in all':>10}   fits on"]
    for name, memory in (
        (f"draw one picture, {dtype}", inference_memory(config)),
        (f"train, batches of {generation_batch(config)}", training_memory(config)),
    ):
        sizes = f"{size(memory.weights):>10}{size(memory.optimizer):>11}{size(memory.activations):>10}"
        lines.append(f"{name:<28}{sizes}{size(memory.total):>10}   {smallest(memory)}")
    return [*lines, *REMARKS]


def smallest(memory: Memory) -> str:
    """The smallest laptop and the smallest GPU that suffice."""
    able = fits(memory.total)
    found = [next((name for name in MACHINES if able[name] and kind in name), None) for kind in ("laptop", "GPU")]
    return ", ".join(name for name in found if name) or "none of these: several GPUs"


def table(configs: Iterable[ModelConfig]) -> str:
    """Markdown: one row per preset."""
    lines = [
        "| preset | parameters | drawing needs | fits on | training needs | fits on | arithmetic per picture |",
        "|---|---|---|---|---|---|---|",
    ]
    for config in configs:
        draw, train = inference_memory(config), training_memory(config)
        lines.append(
            f"| `{config.name}` | {in_words(inference_parameters(config))} | {size(draw.total)} | {smallest(draw)} "
            f"| {size(train.total)} | {smallest(train)} | {short(picture_flops(config)['total'])}FLOP |"
        )
    return "\n".join(lines)


def in_words(count: int) -> str:
    """12_263_742_347 → "12.26 billion"."""
    return f"{count / 1e9:.2f} billion" if count >= 1e9 else f"{count / 1e6:.2f} million"


def short(count: float) -> str:
    """Three digits and a letter: 6_741_472_051_200 → "6.74 T"."""
    for scale, letter in SCALES:
        if count >= scale * 0.9995:
            return f"{count / scale:#.3g} {letter}".replace(". ", " ")
    return f"{count:.0f}"


def size(count: float) -> str:
    """Bytes for people, decimal: 24_530_000_000 → "24.5 GB"."""
    return f"{short(count)}B" if count >= 1000 else f"{count:.0f} B"
