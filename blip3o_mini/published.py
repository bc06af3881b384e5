"""The original's checkpoint folders: which tensor of theirs is which of ours.

    config.json   model-0000k-of-0000n.safetensors   model.safetensors.index.json   tokenizer files
    diffusion-decoder/{unet,vae,scheduler}/
One table holds all names; reading, checking and writing go through it (reference section 4.6).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from . import tensorfile
from .config import ModelConfig
from .published_config import from_published
from .tensorfile import Stored

DECODER = "diffusion-decoder"
WEIGHTS = "diffusion_pytorch_model"
DECODER_FILES = {"unet": "config.json", "vae": "config.json", "scheduler": "scheduler_config.json"}


class Names(NamedTuple):
    """Tensors of one folder of theirs whose names begin alike, and the part and names they have with us."""

    folder: str
    stem: str  # of the files
    theirs: str
    part: str
    ours: str


# the first row that fits counts
TABLE = (
    Names("", "model", "model.dit.model.", "dit", ""),
    Names("", "model", "model.gen_vision_tower.vision_tower.model.", "vision", "tower."),
    Names("", "model", "model.latent_queries", "backbone", "queries"),
    Names("", "model", "visual.", "backbone", "language.model.visual."),
    Names("", "model", "lm_head.", "backbone", "language.lm_head."),
    Names("", "model", "model.", "backbone", "language.model.language_model."),
    Names(f"{DECODER}/unet", WEIGHTS, "", "decoder", "unet."),
    Names(f"{DECODER}/vae", WEIGHTS, "", "decoder", "vae."),
)
UNUSED = ("model.vae.",)  # an autoencoder left in the published 8B files; the original ignores it too
HEAD, EMBEDDING = "language.lm_head.weight", "language.model.language_model.embed_tokens.weight"


def our_name(folder: str, theirs: str) -> tuple[str, str]:
    """The part that a published tensor belongs to, and its name there; ("", theirs) when there is none."""
    for row in TABLE:
        if row.folder == folder and theirs.startswith(row.theirs):
            return row.part, row.ours + theirs.removeprefix(row.theirs)
    return "", theirs


def published_name(part: str, ours: str) -> tuple[str, str]:
    """The folder of a tensor of ours in the published format, and its name there."""
    for row in TABLE:
        if row.part == part and ours.startswith(row.ours):
            return row.folder, row.theirs + ours.removeprefix(row.ours)
    raise ValueError(f"the published format has no place for {ours} of the {part}")


# ------------------------------------------------------------------ reading


def find(folder: Path) -> dict[str, dict[str, Stored]]:
    """All tensors of a published folder by part and our name, known by their headers.

    Unused ones are left out with a line in the log; those without a place stand under "". Raises ValueError
    naming a file that is missing, damaged or a pickle.
    """
    found: dict[str, dict[str, Stored]] = {}
    unused = []
    for place, stem in dict.fromkeys((row.folder, row.stem) for row in TABLE):
        for theirs, stored in tensorfile.find(folder / place, stem).items():
            if theirs.startswith(UNUSED):
                unused.append(theirs)
                continue
            part, ours = our_name(place, theirs)
            found.setdefault(part, {})[ours] = stored
    if unused:
        logging.getLogger(__name__).warning(
            "%s: left out %d tensors that no part uses: %s", folder, len(unused), tensorfile.listed(sorted(unused))
        )
    return found


def read_json(path: Path) -> dict:
    """A JSON file with named values; raises ValueError when it is missing or damaged."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read ({error}); copy it again") from error
    if not isinstance(told, dict):
        raise ValueError(f"{path} holds a {type(told).__name__}, not named values; copy it again")
    return told


def decoder_files(folder: Path) -> dict[str, dict] | None:
    """The decoder's own configurations; None when the folder has no decoder."""
    if not (folder / DECODER).is_dir():
        return None
    return {part: read_json(folder / DECODER / part / file) for part, file in DECODER_FILES.items()}


def read_config(folder: Path, found: Mapping[str, Mapping[str, Stored]]) -> ModelConfig:
    """Our config of a published folder, whose tensors were found."""
    shapes = {part: {name: stored.shape for name, stored in tensors.items()} for part, tensors in found.items()}
    try:
        return from_published(read_json(folder / "config.json"), shapes, decoder_files(folder))
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error
