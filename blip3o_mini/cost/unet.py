"""The decoders, block by block: diffusers' conditional UNet at every size, and the SDXL autoencoder.

Counted the way diffusers builds them, so the parameters agree to the last one: each way down halves the
side, each way up doubles it and reads what the way down left behind at the same size.
"""

from __future__ import annotations

from dataclasses import dataclass

from .layers import Cost, attention, convolution, layer_norm, linear, total

VAE_CHANNELS, VAE_LAYERS, LATENTS, VAE_SHRINKS = (128, 256, 512, 512), 2, 4, 8  # SDXL's autoencoder


@dataclass(frozen=True)
class Unet:
    """Sizes of a UNet2DConditionModel; `depths` are transformer blocks per level, 0 = none at this level."""

    channels_in: int
    channels_out: int
    channels: tuple[int, ...]
    depths: tuple[int, ...]
    layers: int
    context_width: int
    context_tokens: int
    side: int
    added_width: int = 0  # SDXL: pooled features and six sizes, embedded beside the time


def unet(net: Unet) -> Cost:
    """One forward pass of one sample."""
    first, time = net.channels[0], 4 * net.channels[0]
    added = linear(net.added_width, time, 1) + linear(time, time, 1) if net.added_width else Cost()
    return total(
        convolution(net.channels_in, first, net.side**2),
        linear(first, time, 1) + linear(time, time, 1) + added,
        way_down(net, time),
        middle(net, time),
        way_up(net, time),
        layer_norm(first, net.side**2) + convolution(first, net.channels_out, net.side**2),
    )


def way_down(net: Unet, time: int) -> Cost:
    """Every level, and the convolutions that halve the side."""
    cost, wide, side = Cost(), net.channels[0], net.side
    for level, (channels, depth) in enumerate(zip(net.channels, net.depths)):
        for _ in range(net.layers):
            cost += residual(wide, channels, side**2, time) + spatial_transformer(net, channels, depth, side**2)
            wide = channels
        if level < len(net.channels) - 1:
            side //= 2
            cost += convolution(wide, wide, side**2)
    return cost


def middle(net: Unet, time: int) -> Cost:
    wide, cells = net.channels[-1], (net.side // 2 ** (len(net.channels) - 1)) ** 2
    return residual(wide, wide, cells, time) * 2 + spatial_transformer(net, wide, net.depths[-1], cells)


def way_up(net: Unet, time: int) -> Cost:
    """Every level again, reading what the way down left behind."""
    left = [net.channels[0]]  # channels that the way down left behind, the input's first
    for level, channels in enumerate(net.channels):
        left += [channels] * (net.layers + (level < len(net.channels) - 1))
    cost, wide, side = Cost(), net.channels[-1], net.side // 2 ** (len(net.channels) - 1)
    for level in reversed(range(len(net.channels))):
        channels = net.channels[level]
        for _ in range(net.layers + 1):
            cost += residual(wide + left.pop(), channels, side**2, time)
            cost += spatial_transformer(net, channels, net.depths[level], side**2)
            wide = channels
        if level:
            side *= 2
            cost += convolution(wide, wide, side**2)
    return cost


def residual(channels_in: int, channels_out: int, cells: int, time: int = 0) -> Cost:
    """Norm, convolution (and the time), norm, convolution; a 1×1 shortcut where the width changes."""
    is_changed = channels_in != channels_out
    return total(
        layer_norm(channels_in, cells) + convolution(channels_in, channels_out, cells),
        linear(time, channels_out, 1) if time else Cost(),
        layer_norm(channels_out, cells) + convolution(channels_out, channels_out, cells),
        convolution(channels_in, channels_out, cells, kernel=1) * is_changed,
    )


def spatial_transformer(net: Unet, width: int, depth: int, cells: int) -> Cost:
    """Self-attention over the cells, cross-attention to the features, gated feed-forward."""
    if not depth:
        return Cost()
    block = total(
        layer_norm(width, cells) * 3,
        linear(width, width, cells, has_bias=False) * 3 + attention(cells, cells, width) + linear(width, width, cells),
        linear(width, width, cells, has_bias=False) + linear(width, width, cells),
        linear(net.context_width, width, net.context_tokens, has_bias=False) * 2,
        attention(cells, net.context_tokens, width),
        linear(width, 8 * width, cells) + linear(4 * width, width, cells),
    )
    return layer_norm(width, cells) + linear(width, width, cells) * 2 + block * depth


def vae_encoder(image_size: int) -> Cost:
    """SDXL's encoder; at rest while drawing."""
    cost, wide, side = convolution(3, VAE_CHANNELS[0], image_size**2), VAE_CHANNELS[0], image_size
    for level, channels in enumerate(VAE_CHANNELS):
        for _ in range(VAE_LAYERS):
            cost += residual(wide, channels, side**2)
            wide = channels
        if level < len(VAE_CHANNELS) - 1:
            side //= 2
            cost += convolution(wide, wide, side**2)
    ends = layer_norm(wide, side**2) + convolution(wide, 2 * LATENTS, side**2)
    return cost + vae_middle(wide, side**2) + ends + convolution(2 * LATENTS, 2 * LATENTS, side**2, kernel=1)


def vae_decoder(image_size: int) -> Cost:
    """Latents → pixels."""
    wide, side = VAE_CHANNELS[-1], image_size // VAE_SHRINKS
    cost = convolution(LATENTS, LATENTS, side**2, kernel=1) + convolution(LATENTS, wide, side**2)
    cost += vae_middle(wide, side**2)
    for level in reversed(range(len(VAE_CHANNELS))):
        for _ in range(VAE_LAYERS + 1):
            cost += residual(wide, VAE_CHANNELS[level], side**2)
            wide = VAE_CHANNELS[level]
        if level:
            side *= 2
            cost += convolution(wide, wide, side**2)
    return cost + layer_norm(wide, side**2) + convolution(wide, 3, side**2)


def vae_middle(width: int, cells: int) -> Cost:
    read = layer_norm(width, cells) + linear(width, width, cells) * 4 + attention(cells, cells, width)
    return residual(width, width, cells) * 2 + read
