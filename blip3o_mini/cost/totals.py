"""Sums over the parts: parameters, operations and memory of drawing, reading, answering and training.

memory to draw  = weights + the largest tensors of a forward pass + libraries
memory to train = weights + gradients, moments and averages of what learns + kept values + libraries
"""

from __future__ import annotations

from dataclasses import dataclass

from ..config import RECIPES, DecoderConfig, ModelConfig
from . import parts
from .layers import Cost, weights
from .unet import LATENTS, VAE_SHRINKS, Unet, unet, vae_decoder, vae_encoder

CAPTION = 12  # tokens of a typical prompt without its template: "a red circle to the left of a blue square" has 10
TEMPLATE = {"qwen2": 4, "qwen2_5_vl": 29}  # tokens around it, [IMG] included (reference section 1.1)
TALK = 512  # tokens of a long conversation, where the context has room for more
ALIVE = 4  # the largest tensor, times this, is the peak of a forward pass: input, norm, activation, output
KEPT = 1.6  # values kept for the way back per value that a layer makes: sums, gates and rotations add to it
LIBRARIES = 1.0e9  # bytes of Python, torch and the others (0.9 measured while drawing with the toy on a CPU)
BYTES = {"float32": 4, "bfloat16": 2}
# Memory in GiB and the share of it that a program can have.
MACHINES = {
    "8 GB laptop": (8, 0.7), "16 GB laptop": (16, 0.7), "32 GB laptop": (32, 0.7), "24 GB GPU": (24, 0.92),
    "48 GB GPU": (48, 0.92), "80 GB GPU": (80, 0.92), "141 GB GPU": (141, 0.92),
}  # fmt: skip


def is_published(config: ModelConfig) -> bool:
    return config.backbone.kind == "qwen2_5_vl"


def costs(config: ModelConfig) -> dict[str, Cost]:
    """Cost of every component: its parameters, and one forward pass of one sample.

    The pass of `backbone.layers` is a typical prompt and the queries, of `backbone.head` one token, of
    `decoder.vae` the decoding of one picture, of `decoder.unet` one step without guidance.
    """
    vision, backbone, decoder = config.vision, config.backbone, config.decoder
    rows, queries = prompt_tokens(config), backbone.num_queries
    found = {
        "vision": parts.eva(vision) if is_published(config) else parts.clip(vision, backbone.vocabulary),
        "backbone.embedding": weights(backbone.vocabulary * backbone.width),
        "backbone.layers": parts.qwen_layers(backbone, rows=rows, keys=rows),
        "backbone.head": parts.qwen_head(backbone),
        "queries": weights(queries * backbone.width),
        "dit": parts.next_dit(config.dit, cells=vision.num_features, queries=queries),
    }
    if is_published(config):
        found["backbone.visual"] = parts.visual(backbone, vision.image_size)
        found["decoder.vae"] = weights(vae_encoder(decoder.image_size).parameters) + vae_decoder(decoder.image_size)
    else:
        found["backbone.projector"] = parts.projector(backbone, vision.feature_width, vision.num_features)
    return found | {"decoder.unet": unet(unet_of(decoder, vision.num_features))}


def unet_of(decoder: DecoderConfig, tokens: int) -> Unet:
    """The UNet of a decoder: on latents (sdxl) or on folded pixels (pixel)."""
    shared = {
        "channels": decoder.channels, "layers": decoder.layers_per_block,
        "context_width": decoder.feature_width, "context_tokens": tokens,
    }  # fmt: skip
    if decoder.kind == "sdxl":
        # beside the time, the mean feature and six sizes of 256 sinusoids each (reference section 1.5)
        added = decoder.feature_width + 6 * 256
        side = decoder.image_size // VAE_SHRINKS
        return Unet(LATENTS, LATENTS, depths=(0, 2, 10), side=side, added_width=added, **shared)
    pixels, depths = 3 * decoder.fold**2, (0, *[1] * (len(decoder.channels) - 1))
    side = decoder.image_size // decoder.fold
    return Unet(pixels + decoder.feature_width, pixels, depths=depths, side=side, **shared)


def prompt_tokens(config: ModelConfig) -> int:
    """Tokens that the backbone reads for a typical prompt, queries included."""
    return TEMPLATE[config.backbone.kind] + CAPTION + config.backbone.num_queries


def parameters(config: ModelConfig) -> dict[str, int]:
    """Parameters by part, as `Blip3oMini.parameter_counts()` gives them."""
    counts = dict.fromkeys(("vision", "backbone", "dit", "decoder", "queries"), 0)
    for name, cost in costs(config).items():
        counts[name.partition(".")[0]] += cost.parameters
    return counts | {"total": sum(counts.values())}


def inference_parameters(config: ModelConfig) -> int:
    """Parameters needed to draw and to answer.

    The published image tower is needed only to train: there, input pictures have a tower of their own.
    """
    counts = parameters(config)
    return counts["total"] - (counts["vision"] if is_published(config) else 0)


def picture_flops(config: ModelConfig) -> dict[str, int]:
    """Operations of one picture, by step of the way from prompt to pixels, and their total."""
    each = costs(config)
    # The published decoder is also guided away from a picture of nothing, made once and then remembered.
    branches = 2 if is_published(config) and config.decoder.guidance != 1 else 1
    steps = {
        "backbone": each["backbone.layers"].flops,
        "dit": each["dit"].flops * config.steps * (2 if config.guidance_scale != 1 else 1),
        "decoder": each["decoder.unet"].flops * config.decoder.steps * branches,
    }
    if is_published(config):
        steps["vae"] = each["decoder.vae"].flops
    return steps | {"total": sum(steps.values())}


def reading_flops(config: ModelConfig) -> int:
    """Operations to turn one picture into tokens for the backbone."""
    each = costs(config)
    names = ("backbone.visual",) if is_published(config) else ("vision", "backbone.projector")
    return sum(each[name].flops for name in names)


def word_flops(config: ModelConfig) -> int:
    """Operations for one more token of an answer, in the middle of a long conversation."""
    backbone = config.backbone
    one = parts.qwen_layers(backbone, rows=1, keys=min(TALK, backbone.context) // 2) + parts.qwen_head(backbone)
    return one.flops


def generation_flops(config: ModelConfig) -> int:
    """Operations to train DiT and queries on one sample with cached features.

    The DiT runs forth and back (three passes); the frozen backbone reads, and gradients pass through it
    back to the queries only.
    """
    each, backbone = costs(config), config.backbone
    back = parts.qwen_layers(backbone, rows=backbone.num_queries, keys=prompt_tokens(config))
    return each["backbone.layers"].flops + back.flops + 3 * each["dit"].flops


@dataclass(frozen=True)
class Memory:
    """Bytes by what holds them."""

    weights: float
    optimizer: float  # gradients, AdamW's two moments and, where kept, averaged weights
    activations: float
    libraries: float = LIBRARIES

    @property
    def total(self) -> float:
        return self.weights + self.optimizer + self.activations + self.libraries


def default_dtype(config: ModelConfig) -> str:
    return "bfloat16" if is_published(config) else "float32"


def inference_memory(config: ModelConfig, dtype: str | None = None, *, num_images: int = 1) -> Memory:
    """Memory to draw `num_images` pictures at once, every part loaded; raises ValueError on an unknown dtype."""
    size = bytes_of(dtype or default_dtype(config))
    each, published = costs(config), is_published(config)
    peaks = [each["decoder.unet"].largest * (2 if published else 1), each["dit"].largest * 2]
    peaks += [each["decoder.vae"].largest] if published else [each["vision"].largest]
    cache = 2 * config.backbone.layers * min(TALK, config.backbone.context)
    cache *= config.backbone.width // config.backbone.heads * config.backbone.kv_heads
    activations = (ALIVE * max(peaks) + cache) * num_images
    return Memory(inference_parameters(config) * size, 0, activations * size)


def training_memory(config: ModelConfig, batch: int | None = None) -> Memory:
    """Memory of the generation stage on one device: DiT and queries learn, the backbone is frozen.

    Features are cached, so neither image tower nor decoder is loaded; nothing is recomputed. What learns is
    kept in float32 with its gradient and two moments; the rest, and activations, in the preset's dtype.
    """
    recipe = RECIPES.get(config.name, {}).get("generation")
    batch = batch or generation_batch(config)
    counts, size = parameters(config), BYTES[default_dtype(config)]
    learned = counts["dit"] + counts["queries"]
    backbone = config.backbone
    per_sample = costs(config)["dit"] + parts.qwen_layers(
        backbone, rows=backbone.num_queries, keys=prompt_tokens(config)
    )
    return Memory(
        weights=counts["backbone"] * size + learned * 4,
        optimizer=learned * 4 * (4 if recipe and recipe.ema else 3),
        activations=batch * per_sample.values * KEPT * size,
    )


def generation_batch(config: ModelConfig) -> int:
    """Samples per step of the generation stage; published: 16 on each device (reference section 6)."""
    recipes = RECIPES.get(config.name)
    return recipes["generation"].batch if recipes else 16


def bytes_of(dtype: str) -> int:
    if dtype not in BYTES:
        raise ValueError(f"there is no estimate for the dtype {dtype!r}; choose {' or '.join(BYTES)}")
    return BYTES[dtype]


def fits(memory_bytes: float) -> dict[str, bool]:
    """Whether that much memory is to be had on each of a few typical machines."""
    return {name: memory_bytes <= gib * 2**30 * share for name, (gib, share) in MACHINES.items()}
