"""The whole system: prompt → backbone → condition → DiT → features → decoder → picture. Lesson 06.

    condition = backbone(prompt, [IMG], queries)                       (B, Q, H)
    features  = Euler walk along dit(x, sigma, condition), guided      (B, Q, D)
    picture   = decoder(features)                                      (B, 3, H, W)

The same object answers questions, captions, classifies and chats: a picture enters as its features.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from . import checkpoint, flow, world
from .backbone import Backbone
from .config import ModelConfig, preset
from .decoder import Decoder
from .dit import NextDit
from .tokens import ChatTokens, load_tokenizer, pad_left, train_tokenizer
from .vision import Vision, prepare

Prompts = str | Sequence[str]


class Blip3oMini(nn.Module):
    """One model for text→text, image→text, text→image, image→image and dialogue."""

    def __init__(self, config: ModelConfig, tokenizer):
        super().__init__()
        if config.backbone.kind != "qwen2":
            raise ValueError(
                f"the preset {config.name!r} cannot be built as a whole yet; choose tiny or toy "
                "(`blip3o-mini info` tells its sizes and cost)"
            )
        self.config, self.folder = config, None
        self.chat_tokens = ChatTokens(tokenizer, config.vision.num_features)
        self.backbone = Backbone(config.backbone, config.vision.feature_width, self.chat_tokens)
        self.dit = NextDit(config.dit)
        self.decoder = Decoder(config.decoder)

    @property
    def tokenizer(self):
        return self.chat_tokens.tokenizer

    @property
    def device(self) -> torch.device:
        return self.backbone.queries.device

    @property
    def vision(self) -> Vision:
        """The vision part, made on first use: drawing needs none, and open_clip takes seconds to import."""
        if "vision_part" not in self._modules:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                part = Vision(self.config.vision, self.config.backbone.vocabulary)
            if self.folder is not None:
                checkpoint.load_part(part, self.folder, "vision")
            self.vision_part = part.to(self.device, self.backbone.queries.dtype).train(self.training)
        return self.vision_part

    # ------------------------------------------------------------------ making, loading, saving

    @classmethod
    def from_preset(cls, name: str, *, device: str | None = None, seed: int = 0) -> Blip3oMini:
        """A new model with random weights, the same for the same seed."""
        config = preset(name)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = cls(config, train_tokenizer(config.backbone.vocabulary))
        return model.to(checkpoint.choose_device(device)[0]).eval()

    @classmethod
    def from_pretrained(
        cls, name: str | Path, *, device: str | None = None, dtype: torch.dtype | None = None
    ) -> Blip3oMini:
        """Load "toy" (shipped), a folder, or a hub repository "owner/name".

        Raises FileNotFoundError or ValueError naming the file that is missing, damaged, or of another preset.
        """
        folder = checkpoint.find(name)
        device, _ = checkpoint.choose_device(device)
        config = ModelConfig.from_json(checkpoint.read_text(folder / "config.json"))
        with torch.random.fork_rng(devices=[]):
            model = cls(config, load_tokenizer(folder))
        for part in ("backbone", "dit", "decoder"):
            checkpoint.load_part(getattr(model, part), folder, part)
        checkpoint.check_file(folder / "vision.safetensors")
        model.folder = folder
        return model.to(device, dtype).eval()

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json, the tokenizer and one safetensors file per part."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for part in checkpoint.PARTS:
            checkpoint.save_part(getattr(self, part), folder, part)
        self.tokenizer.save_pretrained(folder)
        checkpoint.write_text(folder / "config.json", self.config.to_json())

    def push_to_hub(self, repository: str, **options) -> None:
        """Upload the checkpoint to a hub repository "owner/name" (made if absent)."""
        checkpoint.push(self, repository, **options)

    def parameter_counts(self) -> dict[str, int]:
        """Number of parameters by part; the queries are counted apart from the backbone."""
        counts = {name: sum(p.numel() for p in getattr(self, name).parameters()) for name in checkpoint.PARTS}
        counts["queries"] = self.backbone.queries.numel()
        counts["backbone"] -= counts["queries"]
        return counts | {"total": sum(counts.values())}

    # ------------------------------------------------------------------ pictures in, features out

    @torch.no_grad()
    def encode_images(self, images: Sequence[Image.Image]) -> Tensor:
        """Features (B, Q, D) of pictures of any size."""
        return self.vision(prepare(images, self.config.vision.image_size).to(self.device))

    def rows(self, conversations: Sequence[Sequence[dict]], *, is_drawing: bool = False) -> tuple[Tensor, Tensor]:
        """Left-padded ids and mask (B, T) of open conversations; `is_drawing` adds the [IMG] token."""
        ending = [self.chat_tokens.start_of_image] if is_drawing else []
        ids, mask = pad_left(
            [[*self.chat_tokens.chat(messages)[0], *ending] for messages in conversations], self.chat_tokens.pad
        )
        return torch.from_numpy(ids).to(self.device), torch.from_numpy(mask).to(self.device)

    # ------------------------------------------------------------------ text → image, image → image

    @torch.no_grad()
    def sample(
        self, condition: Tensor, noise: Tensor, *, steps: int, guidance_scale: float, source: Tensor | None = None,
        progress: bool = False,
    ) -> Tensor:  # fmt: skip
        """Features (B, Q, D) by an Euler walk from noise, guided away from the null condition (zeros)."""

        def predict(x: Tensor, timestep: Tensor, condition: Tensor) -> Tensor:
            doubled = None if source is None else source.repeat(len(x) // len(source), 1, 1)
            return self.dit(x, timestep, condition, source=doubled)

        velocity = flow.guided(predict, condition, guidance_scale)
        walk = flow.euler(velocity, noise, flow.sigmas(steps))
        *_, features = tqdm(walk, total=steps, desc="features", leave=False, disable=not progress)
        return features

    @torch.no_grad()
    def draw(
        self, conversations: Sequence[Sequence[dict]], *, pictures: Tensor | None = None, source: Tensor | None = None,
        num_images: int = 1, steps: int | None = None, guidance_scale: float | None = None, seed: int | None = 0,
        generator: torch.Generator | Sequence[torch.Generator] | None = None, decoder_steps: int | None = None,
        progress: bool = False,
    ) -> list[Image.Image]:  # fmt: skip
        """Pictures for conversations that ask for one; `pictures` are the features shown in them.

        Image k of every conversation starts from noise of seed + k, so a batch gives what single calls give.
        """
        steps = self.config.steps if steps is None else steps
        guidance_scale = self.config.guidance_scale if guidance_scale is None else guidance_scale
        check_sampling(num_images, steps, guidance_scale, decoder_steps)
        condition = self.backbone.condition(*self.rows(conversations, is_drawing=True), pictures)
        condition = condition.repeat_interleave(num_images, 0)  # (B · n, Q, H)
        if source is not None:
            source = source.repeat_interleave(num_images, 0)
        generators = self.generators(len(condition), num_images, seed, generator)
        shape = (self.config.vision.num_features, self.config.dit.feature_width)
        noise = self.noise(shape, generators, condition)
        features = self.sample(
            condition, noise, steps=steps, guidance_scale=guidance_scale, source=source, progress=progress
        )
        return self.decode(features, generators, steps=decoder_steps)

    def generators(self, total: int, num_images: int, seed: int | None, generator) -> list[torch.Generator]:
        """One random generator per picture: the given ones, or seed, seed + 1, … for each prompt anew."""
        if isinstance(generator, torch.Generator):
            return [generator] * total
        if generator is not None:
            if len(generator) != total:
                raise ValueError(f"{len(generator)} generators were given for {total} pictures; give one for each")
            return list(generator)
        first = torch.seed() % 2**31 if seed is None else seed
        return [torch.Generator().manual_seed(first + k % num_images) for k in range(total)]

    def noise(self, shape: tuple[int, ...], generators: Sequence[torch.Generator], like: Tensor) -> Tensor:
        """Standard normal noise (B, *shape), one generator per sample, drawn on the CPU and moved."""
        return torch.stack([torch.randn(shape, generator=g) for g in generators]).to(like)

    @torch.no_grad()
    def decode(self, features: Tensor, generators: Sequence[torch.Generator], *, steps: int | None = None) -> list:
        """Pictures from features (B, Q, D)."""
        noise = self.noise(self.decoder.noise_shape, generators, features)
        images = torch.cat([self.decoder.decode(f, n, steps) for f, n in zip(features.split(64), noise.split(64))])
        pixels = (images * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        return [Image.fromarray(picture) for picture in pixels]

    def generate(self, prompt: Prompts, num_images: int = 1, **options) -> list[Image.Image]:
        """Draw `num_images` pictures of each prompt, prompt by prompt (paper section 3).

        Options: steps, guidance_scale (1 is off), seed or generator, decoder_steps, progress.
        Raises ValueError on an empty or too long prompt and on impossible options.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        template = self.config.backbone.generation_prompt
        conversations = [
            [{"role": "user", "content": template.format(caption=check_text(text, "prompt"))}] for text in prompts
        ]
        return self.draw(conversations, num_images=num_images, **options)

    def edit(self, image: Image.Image, instruction: str, num_images: int = 1, **options) -> list[Image.Image]:
        """Carry out an instruction on a picture and leave the rest as it is; options as for `generate`."""
        return self.edit_batch([image], [instruction], num_images=num_images, **options)

    def edit_batch(
        self, images: Sequence[Image.Image], instructions: Sequence[str], num_images: int = 1, **options
    ) -> list[Image.Image]:
        """Edit many pictures at once, each by its own instruction."""
        source = self.encode_images(images)
        conversations = [[with_picture(check_text(text, "instruction"))] for text in instructions]
        return self.draw(conversations, pictures=source, source=source, num_images=num_images, **options)

    def reconstruct(self, images: Sequence[Image.Image], *, seed: int = 0) -> list[Image.Image]:
        """Pictures → features → pictures, without backbone or DiT: the decoder's ceiling."""
        features = self.encode_images(images)
        return self.decode(features, self.generators(len(features), 1, seed, None))

    # ------------------------------------------------------------------ image → text, text → text

    def answer(self, image: Image.Image | None, question: str) -> str:
        """Answer a question about a picture, or without one."""
        return self.answer_batch([image], [question])[0]

    @torch.no_grad()
    def answer_batch(self, images: Sequence[Image.Image | None], questions: Sequence[str]) -> list[str]:
        """Answer many questions at once; an image may be None."""
        shown = [image for image in images if image is not None]
        features = self.encode_images(shown) if shown else None
        conversations = [
            [with_picture(text) if image is not None else {"role": "user", "content": text}]
            for image, text in zip(images, (check_text(q, "question") for q in questions), strict=True)
        ]
        written = self.backbone.write(*self.rows(conversations), features)
        return [self.chat_tokens.decode(row) for row in written.tolist()]

    def caption(self, image: Image.Image, style: str = "short") -> str:
        """Describe a picture, "short" or "long"."""
        return self.caption_batch([image], style)[0]

    def caption_batch(self, images: Sequence[Image.Image], style: str = "short") -> list[str]:
        """Describe many pictures at once."""
        if style not in world.CAPTION_REQUESTS:
            raise ValueError(f"there is no caption style {style!r}; choose short or long")
        return self.answer_batch(images, [world.CAPTION_REQUESTS[style][0]] * len(images))

    @torch.no_grad()
    def classify(self, image: Image.Image, labels: Sequence[str]) -> dict[str, float]:
        """Probability of each label: how likely the backbone is to answer with it, compared to the others."""
        return self.classify_batch([image], labels)[0]

    @torch.no_grad()
    def classify_batch(self, images: Sequence[Image.Image], labels: Sequence[str]) -> list[dict[str, float]]:
        """Classify many pictures with the same labels."""
        if not labels:
            raise ValueError("no labels were given; name at least one")
        asked = with_picture("what is in the picture?")
        answers = [{"role": "assistant", "content": check_text(label, "label")} for label in labels]
        rows, said = zip(*(self.chat_tokens.chat([asked, answer], is_open=False) for answer in answers))
        ids, mask = (torch.from_numpy(a).to(self.device) for a in pad_left(rows, self.chat_tokens.pad))
        weight = torch.from_numpy(pad_left(said, 0)[0]).to(self.device)[:, 1:]
        features, scores = self.encode_images(images), []
        for one in features:
            hidden = self.backbone.hidden_states(ids, mask, one.expand(len(labels), -1, -1))[:, :-1]
            log_shares = self.backbone.logits(hidden).log_softmax(-1).gather(2, ids[:, 1:, None]).squeeze(2)
            scores.append((log_shares * weight).sum(1))
        shares = torch.stack(scores).softmax(1)
        return [dict(zip(labels, row)) for row in shares.tolist()]

    # ------------------------------------------------------------------ dialogue

    @torch.no_grad()
    def chat(self, messages: Sequence[dict], *, seed: int = 0, **options) -> dict:
        """Answer a conversation with a message: text, or a picture when the model decides to draw.

        Messages follow the chat template: {"role", "content"}, content a string or a list of parts
        {"type": "text", "text": …} and {"type": "image", "image": PIL image}, from either side.
        """
        if not messages or messages[-1].get("role") != "user":
            raise ValueError("a conversation must end with a message of the user")
        shown = [part["image"] for m in messages if not isinstance(m["content"], str)
                 for part in m["content"] if part["type"] == "image"]  # fmt: skip
        features = self.encode_images(shown) if shown else None
        written = self.backbone.write(*self.rows([messages]), features, stop=self.chat_tokens.start_of_image)
        if self.chat_tokens.start_of_image not in written[0]:
            return {"role": "assistant", "content": [{"type": "text", "text": self.chat_tokens.decode(written[0])}]}
        source = None if features is None else features[-1:]  # an edit starts from the latest picture
        picture = self.draw([messages], pictures=features, source=source, seed=seed, **options)[0]
        return {"role": "assistant", "content": [{"type": "image", "image": picture}]}


def with_picture(text: str) -> dict:
    """A user's message that shows a picture and says something."""
    return {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}


def check_text(text: str, name: str) -> str:
    """The text itself; raises ValueError when there is nothing to read in it."""
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"the {name} is empty; write what you want in a few words")
    return text


def check_sampling(num_images: int, steps: int, guidance_scale: float, decoder_steps: int | None) -> None:
    """Raise ValueError on options that no sampler can follow."""
    for name, value in (("num_images", num_images), ("steps", steps), ("decoder_steps", decoder_steps or 1)):
        if value < 1:
            raise ValueError(f"{name} is {value}; expected 1 or more")
    if not np.isfinite(guidance_scale):
        raise ValueError(f"guidance_scale is {guidance_scale}; expected a finite number such as 3.0 (1 is off)")
