"""The whole system: prompt → backbone → condition → DiT → features → decoder → picture. Lesson 06.

    condition = backbone(prompt, [IMG], queries)                       (B, Q, H)
    features  = Euler walk along dit(x, sigma, condition), guided      (B, Q, D)
    picture   = decoder(features)                                      (B, 3, H, W)

The same object answers questions, captions, classifies and chats: a picture enters as its features.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from . import flow, sampling, world
from .backbone import Backbone
from .config import ModelConfig
from .decoder import Decoder
from .dit import NextDit
from .pretrained import Pretrained
from .qwen_chat import QwenChat
from .qwen_vl import Patches, QwenVlBackbone
from .sampling import Generators, check_sampling
from .sdxl import SdxlDecoder
from .tokens import ChatTokens, pad_left
from .vision import prepare

Prompts = str | Sequence[str]
Pictures = Tensor | Patches | None  # as the backbone takes them: features (n, Q, D), or patches for its own tower


class Blip3oMini(Pretrained):
    """One model for text→text, image→text, text→image, image→image and dialogue."""

    def __init__(self, config: ModelConfig, tokenizer):
        super().__init__()
        self.config = config
        if self.is_published:
            self.chat_tokens = QwenChat(tokenizer, config.backbone)
            self.backbone = QwenVlBackbone(config.backbone, self.chat_tokens)
        else:
            self.chat_tokens = ChatTokens(tokenizer, config.vision.num_features)
            self.backbone = Backbone(config.backbone, config.vision.feature_width, self.chat_tokens)
        self.dit = NextDit(config.dit)
        self.decoder = (SdxlDecoder if config.decoder.kind == "sdxl" else Decoder)(config.decoder)

    @property
    def is_published(self) -> bool:
        """Whether the backbone is Qwen2.5-VL, which has an image tower of its own for input pictures."""
        return self.config.backbone.kind == "qwen2_5_vl"

    # ------------------------------------------------------------------ pictures and words in

    @torch.no_grad()
    def encode_images(self, images: Sequence[Image.Image]) -> Tensor:
        """Features (B, Q, D) of pictures of any size."""
        return self.vision(prepare(images, self.config.vision.image_size).to(self.device))

    def see(self, images: Sequence[Image.Image], *, is_drawing: bool = False) -> Pictures:
        """Pictures as the backbone takes them; the published one sees another form of them when it is to draw."""
        if not images:
            return None
        if self.is_published:
            return self.backbone.patches(images, is_drawing=is_drawing)
        return self.encode_images(images)

    def rows(
        self, conversations: Sequence[Sequence[dict]], pictures: Pictures = None, *, is_drawing: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Left-padded ids and mask (B, T) of open conversations; `is_drawing` adds the [IMG] token."""
        ending = [self.chat_tokens.start_of_image] if is_drawing else []
        return self.aligned([[*self.chat_tokens.chat(talk)[0], *ending] for talk in conversations], pictures)

    def aligned(self, rows: Sequence[Sequence[int]], pictures: Pictures) -> tuple[Tensor, Tensor]:
        """Ids and mask (B, T) of rows with room for their pictures, padded on the left."""
        if isinstance(pictures, Patches):
            rows = self.chat_tokens.widen(rows, self.backbone.counts(pictures))
        ids, mask = pad_left(rows, self.chat_tokens.pad)
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

        velocity = flow.guided(predict, condition, guidance_scale, is_integer=self.config.dit.is_integer)
        walk = flow.euler(velocity, noise, flow.sigmas(steps))
        *_, features = tqdm(walk, total=steps, desc="features", leave=False, disable=not progress)
        return features

    @torch.no_grad()
    def draw(
        self, conversations: Sequence[Sequence[dict]], *, pictures: Pictures = None, source: Tensor | None = None,
        num_images: int = 1, steps: int | None = None, guidance_scale: float | None = None, seed: int | None = 0,
        generator: Generators = None, decoder_steps: int | None = None, decoder_guidance_scale: float | None = None,
        negative_prompt: str | None = None, progress: bool = False,
    ) -> list[Image.Image]:  # fmt: skip
        """Pictures for conversations that ask for one; `pictures` are those shown in them, as `see` gives them.

        Image k of every conversation starts from noise of seed + k, so a batch gives what single calls give.
        """
        steps = self.config.steps if steps is None else steps
        guidance_scale = self.config.guidance_scale if guidance_scale is None else guidance_scale
        check_sampling(num_images, steps, guidance_scale, decoder_steps)
        self.check_decoder()
        condition = self.backbone.condition(*self.rows(conversations, pictures, is_drawing=True), pictures)
        condition = condition.repeat_interleave(num_images, 0)  # (B · n, Q, H)
        if source is not None:
            source = source.repeat_interleave(num_images, 0)
        generators = self.generators(len(condition), num_images, seed, generator)
        sampled = {"steps": steps, "guidance_scale": guidance_scale, "progress": progress}
        features = self.sample(condition, self.start(generators, condition), source=source, **sampled)
        guidance = self.config.decoder.guidance if decoder_guidance_scale is None else decoder_guidance_scale
        if guidance == 1 and negative_prompt is not None:
            raise ValueError("a negative prompt changes nothing while decoder_guidance_scale is 1; leave one out")
        negative = None if guidance == 1 else self.negative(negative_prompt, **sampled)
        return self.decode(
            features, generators, steps=decoder_steps, negative=negative, guidance=guidance, progress=progress
        )

    def negative(self, prompt: str | None, **sampled) -> Tensor:
        """Features (1, Q, D) that a guided decoder moves away from: drawn for a bare prompt, " " as published.

        No chat template, as in the reference, section 1.5; but always the same ones, from a seed of their own,
        where the original's depend on what was drawn before (quirk Q9).
        """
        prompt = self.config.decoder.negative_prompt if prompt is None else prompt
        if prompt is None:
            raise ValueError("this decoder was not trained to be guided; leave decoder_guidance_scale at 1")
        condition = self.backbone.condition(*self.aligned([self.chat_tokens.bare(prompt)], None))
        return self.sample(condition, self.start(self.generators(1, 1, 0, None), condition), **sampled)

    def start(self, generators: Sequence[torch.Generator], condition: Tensor) -> Tensor:
        """The noise (B, Q, D) from which features are drawn."""
        return self.noise((self.config.vision.num_features, self.config.dit.feature_width), generators, condition)

    generators = staticmethod(sampling.generators)
    noise = staticmethod(sampling.noise)

    @torch.no_grad()
    def decode(
        self, features: Tensor, generators: Sequence[torch.Generator], *, steps: int | None = None, **guided
    ) -> list[Image.Image]:
        """Pictures from features (B, Q, D); guided: negative (1, Q, D), guidance and progress of a guided decoder."""
        self.check_decoder()
        noise = self.noise(self.decoder.noise_shape, generators, features)
        guided = guided if self.config.decoder.kind == "sdxl" else {}
        some = zip(features.split(self.decoder.most), noise.split(self.decoder.most))
        images = torch.cat([self.decoder.decode(f, n, steps, **guided) for f, n in some])
        pixels = (images * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        return [Image.fromarray(picture) for picture in pixels]

    def generate(self, prompt: Prompts, num_images: int = 1, **options) -> list[Image.Image]:
        """Draw `num_images` pictures of each prompt, prompt by prompt (paper section 3).

        Options: steps, guidance_scale (1 is off), seed or generator, decoder_steps, progress; for the published
        decoder also decoder_guidance_scale (1 is off) and negative_prompt, which it moves away from.
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
        """Edit many pictures at once, each by its own instruction.

        The published model was never trained to edit; it draws something like the picture (reference 2.1).
        """
        template, pictures = self.config.backbone.editing_prompt, self.see(images, is_drawing=True)
        texts = [template.format(instruction=check_text(text, "instruction")) for text in instructions]
        source = pictures if self.config.dit.has_source else None
        conversations = [[with_picture(text)] for text in texts]
        return self.draw(conversations, pictures=pictures, source=source, num_images=num_images, **options)

    def reconstruct(self, images: Sequence[Image.Image], *, seed: int = 0) -> list[Image.Image]:
        """Pictures → features → pictures, without backbone or DiT: the decoder's ceiling."""
        features = self.encode_images(images)
        guidance = self.config.decoder.guidance
        negative = None if guidance == 1 else self.vision.null_features(self.device)
        generators = self.generators(len(features), 1, seed, None)
        return self.decode(features, generators, negative=negative, guidance=guidance)

    # ------------------------------------------------------------------ image → text, text → text

    def answer(self, image: Image.Image | None, question: str) -> str:
        """Answer a question about a picture, or without one."""
        return self.answer_batch([image], [question])[0]

    @torch.no_grad()
    def answer_batch(self, images: Sequence[Image.Image | None], questions: Sequence[str]) -> list[str]:
        """Answer many questions at once; an image may be None."""
        pictures = self.see([image for image in images if image is not None])
        conversations = [
            [with_picture(text) if image is not None else {"role": "user", "content": text}]
            for image, text in zip(images, (check_text(q, "question") for q in questions), strict=True)
        ]
        written = self.backbone.write(*self.rows(conversations, pictures), pictures)
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
        said, scores = torch.from_numpy(pad_left(said, 0)[0]).to(self.device), []
        for picture in images:
            shown = self.see([picture])
            shown = shown.repeated(len(labels)) if self.is_published else shown.expand(len(labels), -1, -1)
            ids, mask = self.aligned(rows, shown)
            weight = F.pad(said, (ids.shape[1] - said.shape[1], 0))[:, 1:]
            hidden = self.backbone.hidden_states(ids, mask, shown)[:, :-1]
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
        pictures = self.see(shown)
        written = self.backbone.write(*self.rows([messages], pictures), pictures, stop=self.chat_tokens.start_of_image)
        if self.chat_tokens.start_of_image not in written[0]:
            return {"role": "assistant", "content": [{"type": "text", "text": self.chat_tokens.decode(written[0])}]}
        # an edit starts from the latest picture
        source = pictures[-1:] if self.config.dit.has_source and pictures is not None else None
        picture = self.draw([messages], pictures=pictures, source=source, seed=seed, **options)[0]
        return {"role": "assistant", "content": [{"type": "image", "image": picture}]}


def with_picture(text: str) -> dict:
    """A user's message that shows a picture and says something."""
    return {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}


def check_text(text: str, name: str) -> str:
    """The text itself; raises ValueError when there is nothing to read in it."""
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"the {name} is empty; write what you want in a few words")
    return text
