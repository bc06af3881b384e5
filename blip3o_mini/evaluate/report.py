"""Scores as a table for people and as a file for programs."""

from __future__ import annotations

import json
import os
from pathlib import Path


def format_scores(results: dict, *, has_categories: bool = True) -> str:
    """A table: every suite on prompts never seen in training and on seen ones, with 95 % intervals."""
    suites = {name: (splits, _categories(splits)) for name, splits in results["suites"].items()}
    wide = max([20, *(4 + len(category) for _, names in suites.values() for category in names)])
    lines = [f"{'':{wide}}{'held-out':<22}{'seen':<22}{'baseline':>8}{'n':>6}"]
    for name, (splits, names) in suites.items():
        first = next(iter(splits.values()))
        lines.append(f"{name:<{wide}}{_row(splits)}{first['baseline']:>8.2f}{first['n']:>6}")
        if has_categories and len(names) > 1:
            for category in names:
                parts = {key: split["categories"].get(category) for key, split in splits.items()}
                n = next(part["n"] for part in parts.values() if part)
                lines.append(f"  {category:<{wide - 2}}{_row(parts)}{'':>8}{n:>6}".rstrip())
    lines.append("in brackets: 95 % intervals; baseline: the most common answer, or chance; n: held-out prompts")
    return "\n".join(lines)


def _categories(splits: dict[str, dict]) -> list[str]:
    return list(dict.fromkeys(category for split in splits.values() for category in split["categories"]))


def _row(parts: dict[str, dict | None]) -> str:
    return "".join(_cell(parts.get(split)) for split in ("heldout", "seen"))


def _cell(part: dict | None) -> str:
    text = f"{part['mean']:.2f} ({part['low']:.2f} to {part['high']:.2f})" if part else "–"
    return f"{text:<22}"


def write_json(path: str | Path, results: dict) -> None:
    """Write the scores; a crash leaves the old file or the new one, never half of one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
