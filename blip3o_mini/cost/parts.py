"""The transformers, layer by layer: CLIP towers, the backbone with its image tower, and the Next-DiT.

Each function mirrors one module (vision, backbone, dit) or the published tower that takes its place, so
that the parameters agree to the last one; the tests compare them with the modules and the reference (11.1).
"""

from __future__ import annotations

from ..config import BackboneConfig, DitConfig, VisionConfig
from .layers import Cost, attention, layer_norm, linear, rms_norm, total, weights

SINUSOIDS = 256  # width of the DiT's code for the noise level
VISUAL = {"layers": 32, "width": 1280, "ffn": 3420, "patch": 14, "frames": 2, "merge": 2}  # Qwen2.5-VL, both sizes


def clip(config: VisionConfig, vocabulary: int) -> Cost:
    """open_clip's CLIP: the image tower works; the text tower only rests in memory after training."""
    resting = transformer(config.text_width, 4 * config.text_width, config.text_layers, rows=0)
    return total(
        image_tower(config),
        layer_norm(config.width, 0) * 2,  # before and after the blocks
        linear(config.width, config.width, 1, has_bias=False),  # into the space shared with texts
        weights(config.text_width * (vocabulary + config.text_context)),
        resting,
        layer_norm(config.text_width, 0),
        weights(config.text_width * config.width + 1),  # text projection, and the scale of the similarities
    )


def eva(config: VisionConfig) -> Cost:
    """EVA-CLIP-E/14+ without final norm and head (reference section 3.1)."""
    return image_tower(config) + weights(config.width)  # here the patches have a bias


def image_tower(config: VisionConfig) -> Cost:
    """Patches, positions and blocks, as both towers have them."""
    patches = (config.image_size // config.patch_size) ** 2
    tokens = patches + 1  # the class token
    return total(
        linear(3 * config.patch_size**2, config.width, patches, has_bias=False),
        weights((1 + tokens) * config.width),  # class token, positions
        transformer(config.width, int(config.mlp_ratio * config.width), config.layers, rows=tokens),
    )


def transformer(width: int, ffn: int, layers: int, *, rows: int) -> Cost:
    """Plain blocks: two layer norms, attention with biases, two linear layers."""
    block = total(
        layer_norm(width, rows) * 2,
        linear(width, 3 * width, rows),
        attention(rows, rows, width),
        linear(width, width, rows),
        linear(width, ffn, rows),
        linear(ffn, width, rows),
    )
    return block * layers


def qwen_layers(config: BackboneConfig, *, rows: int, keys: int) -> Cost:
    """The decoder and its final norm, for `rows` new tokens that look at up to `keys` tokens."""
    width, kv_width = config.width, config.width // config.heads * config.kv_heads
    block = total(
        rms_norm(width, rows) * 2,
        linear(width, width + 2 * kv_width, rows),
        attention(rows, keys, width),
        linear(width, width, rows, has_bias=False),
        linear(width, config.ffn_width, rows, has_bias=False) * 2,
        linear(config.ffn_width, width, rows, has_bias=False),
    )
    return block * config.layers + rms_norm(width, rows)


def qwen_head(config: BackboneConfig) -> Cost:
    """Logits of one token; a tied head uses the embedding's weights."""
    head = linear(config.width, config.vocabulary, 1, has_bias=False)
    return head.shared() if config.is_tied else head


def projector(config: BackboneConfig, feature_width: int, rows: int) -> Cost:
    """Small models: features → embeddings, and a learned place for each."""
    return linear(feature_width, config.width, rows) + weights(config.image_positions * config.width)


def visual(config: BackboneConfig, image_size: int) -> Cost:
    """Qwen2.5-VL's image tower: RMS norms, gated feed-forward, 2×2 patches merged into one token.

    Counted as if every layer looked at the whole picture; 28 of 32 look at windows, which saves a little.
    """
    width, ffn, merged = VISUAL["width"], VISUAL["ffn"], VISUAL["merge"] ** 2 * VISUAL["width"]
    patches = (image_size // VISUAL["patch"]) ** 2
    block = total(
        rms_norm(width, patches) * 2,
        linear(width, 3 * width, patches),
        attention(patches, patches, width),
        linear(width, width, patches),
        linear(width, ffn, patches) * 2,
        linear(ffn, width, patches),
    )
    tokens = patches // VISUAL["merge"] ** 2
    return total(
        linear(3 * VISUAL["frames"] * VISUAL["patch"] ** 2, width, patches, has_bias=False),
        block * VISUAL["layers"],
        rms_norm(width, patches),
        linear(merged, merged, tokens),
        linear(merged, config.width, tokens),
    )


def next_dit(config: DitConfig, *, cells: int, queries: int) -> Cost:
    """One forward pass of one sample: `cells` features, a condition of `queries` vectors."""
    width, embed = config.width, min(config.width, 1024)
    block = dit_block(config, embed, cells=cells, queries=queries)
    return total(
        linear(config.feature_width, width, cells),
        linear(config.condition_width, width, queries) + linear(width, width, queries),
        linear(SINUSOIDS, embed, 1) + linear(embed, embed, 1),
        layer_norm(width, 1) + linear(width, embed, 1),
        block * config.layers,
        linear(embed, width, 1) + linear(width, config.feature_width, cells),
        weights(config.positions * width),
        linear(width, width, config.is_aligned * queries, has_bias=False) * config.is_aligned,
        linear(config.feature_width, width, 0, has_bias=False) * config.has_source,  # works only in edits
    )


def dit_block(config: DitConfig, embed: int, *, cells: int, queries: int) -> Cost:
    """Both attentions with one output, the feed-forward, and the norms before and after each."""
    width, kv_width = config.width, config.width // config.heads * config.kv_heads
    inner = -(-int(8 * width / 3) // config.multiple_of) * config.multiple_of  # rounded up (reference 4.4)

    def read(keys: int) -> Cost:
        """Queries, keys and values with their norms, then attention."""
        return total(
            linear(width, width, cells, has_bias=False) + layer_norm(width, cells),
            linear(width, kv_width, keys, has_bias=False) * 2 + layer_norm(kv_width, keys),
            attention(cells, keys, width),
        )

    return total(
        weights(config.heads),  # the gates of cross-attention
        linear(embed, 4 * width, 1),
        read(cells) + read(queries) + linear(width, width, cells, has_bias=False),
        linear(width, inner, cells, has_bias=False) * 2 + linear(inner, width, cells, has_bias=False),
        rms_norm(width, cells) * 4 + rms_norm(width, queries),
    )
