"""What each training stage trains, on which batches, with which loss; everything else stays frozen. Lesson 07.

stage          trains                          frozen and cached
vision         CLIP tower (+ word head)        –
decoder        UNet                            features of the pool
understanding  backbone, queries               features of the pool
generation     queries, DiT                    features of the pool; the backbone only reads
instruct       queries, DiT                    the same, on the small clean set
joint          backbone, queries, DiT          features of the pool (what the paper argues against)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from .. import flow, world
from ..config import Recipe
from ..data import Pool, batches
from ..model import Blip3oMini
from ..objectives import contrastive_loss, flow_loss, offset_loss, word_loss
from ..vision import WordHead, to_tensor
from .loop import Losses, random_for, torch_generator

CONTRASTIVE_WEIGHT = 0.3
READING_WEIGHT = 0.5
FEATURE_NOISE = 0.3  # in units of the features' standard deviation
HIDDEN_WORDS = 0.15  # share of the assistant's words that it cannot see while it goes on speaking
SIGMA_SHIFT = 1.5  # what stands in which cell is decided above sigma 0.85: most samples must lie there
CLEAN_SET = 8000  # scenes of the instruction set


class Plan(NamedTuple):
    """One stage, ready to run."""

    parameters: dict[str, nn.Parameter]
    losses_at: Callable[[int], Losses]
    parts: tuple[str, ...]  # whose files it rewrites
    finish: Callable[[], None] = lambda: None


def named(**modules: nn.Module | nn.Parameter) -> dict[str, nn.Parameter]:
    """{"module.name": parameter} of some modules or single parameters, each shared one once."""
    found: dict[str, nn.Parameter] = {}
    for prefix, module in modules.items():
        own = {"": module} if isinstance(module, nn.Parameter) else dict(module.named_parameters())
        found |= {f"{prefix}.{name}".rstrip("."): p for name, p in own.items()}
    return found


def freeze_all_but(model: Blip3oMini, parameters: dict[str, nn.Parameter]) -> None:
    """Only `parameters` learn: nothing else gets a gradient."""
    model.requires_grad_(False)
    for p in parameters.values():
        p.requires_grad_(True)


def plan(stage: str, model: Blip3oMini, pool: Pool, recipe: Recipe, seed: int) -> Plan:
    """The plan of a stage; raises ValueError on an unknown name."""
    plans = {
        "vision": vision_plan, "decoder": decoder_plan, "understanding": understanding_plan,
        "generation": generation_plan, "instruct": instruct_plan, "joint": joint_plan,
    }  # fmt: skip
    if stage not in plans:
        raise ValueError(f"there is no stage {stage!r}; choose from {', '.join(plans)}")
    made = plans[stage](model, pool, recipe, seed)
    freeze_all_but(model, made.parameters)
    return made


def vision_plan(model: Blip3oMini, pool: Pool, recipe: Recipe, seed: int) -> Plan:
    """Contrastive training of the tower, with words for every cell, then whitening of its features."""
    vision, config = model.vision, model.config.vision
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = WordHead(config.width, len(world.CELL_WORDS)).to(model.device)

    def losses_at(step: int) -> Losses:
        rng, generator = random_for(seed, "vision", step)
        batch = batches.vision_batch(rng, model.chat_tokens, recipe.batch, config.text_context)
        images, texts, words, judged, offsets = to_device(model, *batch)
        tokens, embedding = vision.tokens(images)
        scale = vision.clip.logit_scale.exp().clamp(max=100)
        contrast = contrastive_loss(embedding, vision.clip.encode_text(texts), scale)
        said, guess = head(tokens, generator)
        reported = {
            "contrast": contrast, "words": word_loss(said, words, judged), "offset": offset_loss(guess, offsets),
        }  # fmt: skip
        return {"loss": CONTRASTIVE_WEIGHT * contrast + reported["words"] + reported["offset"], **reported}

    def finish() -> None:
        with torch.no_grad():
            scenes = tqdm(range(0, min(8192, pool.size), 256), desc="whitening", leave=False)
            pictures = (to_tensor(world.render(pool.scenes[i : i + 256])).to(model.device) for i in scenes)
            vision.fit_whitening(torch.cat([vision.tokens(p)[0].cpu() for p in pictures]))

    return Plan(named(clip=vision.clip, head=head), losses_at, ("vision",), finish)


def decoder_plan(model: Blip3oMini, pool: Pool, recipe: Recipe, seed: int) -> Plan:
    """The UNet learns to draw the picture behind features."""

    def losses_at(step: int) -> Losses:
        rng, generator = random_for(seed, "decoder", step)
        chosen = rng.integers(pool.size, size=recipe.batch)
        images = to_tensor(world.render([pool.scenes[i] for i in chosen])).to(model.device)
        return {"loss": model.decoder.loss(images, pool.features[chosen].to(model.device), generator)}

    return Plan(named(decoder=model.decoder), losses_at, ("decoder",))


def understanding_loss(model: Blip3oMini, pool: Pool, rng, size: int) -> Tensor:
    """Next-token loss on a batch of conversations, computed only where the assistant speaks.

    Some of the words already said are hidden, so that the next one is read off the picture and not guessed
    from its neighbour: "red" would otherwise come to forbid "circle" when the two were never seen together.
    """
    batch = batches.conversation_batch(rng, pool, model.chat_tokens, size)
    is_hidden = torch.from_numpy(rng.random(batch.ids.shape) < HIDDEN_WORDS) & batch.said.bool()
    shown = batch.ids.masked_fill(is_hidden, model.chat_tokens.pad)
    batch = batch._replace(features=blurred(batch.features, rng))
    shown, ids, mask, said, features = to_device(model, shown, *batch)
    is_said = said[:, 1:].bool()
    before = model.backbone.hidden_states(shown, mask, features)[:, :-1][is_said]  # (spoken, H)
    return F.cross_entropy(model.backbone.logits(before), ids[:, 1:][is_said])


def blurred(features: Tensor | None, rng) -> Tensor | None:
    """Features with a little noise: what the backbone makes of them must not hang on their last digit."""
    return None if features is None else features + FEATURE_NOISE * flow.sample_noise(features, torch_generator(rng))


def reading_loss(model: Blip3oMini, reader: nn.Linear, pool: Pool, rng, size: int) -> Tensor:
    """What will stand in each cell? `reader` tells it from the condition, before anything is drawn.

    A pretrained language model comes to the generation stage knowing how to look things up in a prompt.
    Ours learns it here; `reader` is dropped afterwards. It is asked only for what the prompt decides: guessing
    the colour of "a circle" would teach which colours circles never had.
    """
    batch = batches.drawing_batch(rng, pool, model.chat_tokens, size, edits=0.3)
    batch = batch._replace(features=blurred(batch.features, rng))
    words, judged, named, is_named = to_device(model, batch.words, batch.judged, batch.named, batch.is_named)
    cells, objects = reader(conditions(model, batch)).chunk(2, -1)
    objects = objects[:, : named.shape[1]]
    return word_loss(cells, words, judged) + word_loss(objects, named, is_named)


def conditions(model: Blip3oMini, batch: batches.Drawings) -> Tensor:
    """Conditions (B, Q, H) of a batch, read in four groups of similar length: most prompts are short."""
    ids, mask, features = to_device(model, batch.ids, batch.mask, batch.features)
    shown = (ids == model.chat_tokens.image_pad).sum(1) // model.config.vision.num_features  # pictures in each row
    found, first = [], 0
    for rows in torch.arange(len(ids)).chunk(4):
        length, last = int(mask[rows].sum(1).max()), first + int(shown[rows].sum())
        pictures = features[first:last] if last > first else None
        found.append(model.backbone.condition(ids[rows, -length:], mask[rows, -length:], pictures))
        first = last
    return torch.cat(found)


def make_reader(model: Blip3oMini, seed: int) -> nn.Linear:
    """A linear layer from the queries' hidden states to words."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Linear(model.config.backbone.width, 2 * len(world.CELL_WORDS)).to(model.device)


def to_device(model: Blip3oMini, *tensors: Tensor | None) -> list[Tensor | None]:
    return [None if t is None else t.to(model.device) for t in tensors]


def understanding_plan(model: Blip3oMini, pool: Pool, recipe: Recipe, seed: int) -> Plan:
    """The backbone learns to look, to read and to talk."""
    reader = make_reader(model, seed)

    def losses_at(step: int) -> Losses:
        rng, _ = random_for(seed, "understanding", step)
        talking = understanding_loss(model, pool, rng, recipe.batch)
        reading = reading_loss(model, reader, pool, rng, recipe.batch)
        return {"loss": talking + READING_WEIGHT * reading, "talking": talking, "reading": reading}

    return Plan(named(backbone=model.backbone, reader=reader), losses_at, ("backbone",))


def drawing_loss(model: Blip3oMini, batch: batches.Drawings, recipe: Recipe, generator) -> Tensor:
    """Flow-matching loss on a batch of prompts and the features to generate."""
    condition = conditions(model, batch)
    target, source = to_device(model, batch.target, batch.source)
    condition, target, source = (part.repeat(recipe.draws, 1, 1) for part in (condition, target, source))
    return flow_loss(
        model.dit, target, condition, generator, source=source, drop=recipe.drop, shift=SIGMA_SHIFT
    )


def generation_plan(model: Blip3oMini, pool: Pool, recipe: Recipe, seed: int) -> Plan:
    """Queries and DiT learn to draw, from a backbone that stays as it is."""

    def losses_at(step: int) -> Losses:
        rng, generator = random_for(seed, "generation", step)
        batch = batches.drawing_batch(rng, pool, model.chat_tokens, recipe.batch)
        return {"loss": drawing_loss(model, batch, recipe, generator)}

    return Plan(named(queries=model.backbone.queries, dit=model.dit), losses_at, ("backbone", "dit"))


def instruct_plan(model: Blip3oMini, pool: Pool, recipe: Recipe, seed: int) -> Plan:
    """The same as generation, on the small clean set with editing and dialogue."""

    def losses_at(step: int) -> Losses:
        rng, generator = random_for(seed, "instruct", step)
        batch = batches.instruct_batch(rng, pool, model.chat_tokens, recipe.batch, clean=CLEAN_SET)
        return {"loss": drawing_loss(model, batch, recipe, generator)}

    return Plan(named(queries=model.backbone.queries, dit=model.dit), losses_at, ("backbone", "dit"))


def joint_plan(model: Blip3oMini, pool: Pool, recipe: Recipe, seed: int) -> Plan:
    """Understanding and generation at once, half a batch each; gradients of both reach the backbone."""
    half, reader = recipe.batch // 2, make_reader(model, seed)

    def losses_at(step: int) -> Losses:
        rng, generator = random_for(seed, "joint", step)
        text = understanding_loss(model, pool, rng, half)
        reading = reading_loss(model, reader, pool, rng, half)
        image = drawing_loss(model, batches.drawing_batch(rng, pool, model.chat_tokens, half), recipe, generator)
        return {"loss": text + READING_WEIGHT * reading + image, "text": text, "reading": reading, "image": image}

    return Plan(named(backbone=model.backbone, reader=reader, dit=model.dit), losses_at, ("backbone", "dit"))
