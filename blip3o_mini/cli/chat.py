"""chat: a conversation in which both sides may show pictures.

Messages have the form that chat templates know:
{"role": "user", "content": [{"type": "image", "image": PIL}, {"type": "text", "text": "…"}]}.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from . import session
from .arguments import add_command, add_model_options, words

TEACHES = """
Talk with the model. It answers in words or draws a picture, whichever the message asks for,
and remembers what was said and shown before.

Type a message and press Enter. Lines that begin with a slash are commands:
  /image FILE   show the model a picture together with your next message
  /new          forget everything and begin again
  /save         write the conversation to DIR/chat.json
  /quit         leave (so does the end of the input)

Writes: DIR/0000.png, 0001.png … for each picture the model draws; chat.json on /save."""

PROMPT = "you: "


def add(commands) -> None:
    parser = add_command(
        commands, "chat", chat, summary="a dialogue with pictures both ways", teaches=TEACHES,
        examples="""
        blip3o-mini chat
        blip3o-mini chat --message "Draw a small yellow star." --message "Make it blue." --out out/chat
        echo "How many corners does a triangle have?" | blip3o-mini chat
        """,
    )  # fmt: skip
    parser.add_argument(
        "--message", type=words, action="append", metavar="TEXT",
        help="say this instead of reading the keyboard; give it several times for several turns",
    )  # fmt: skip
    parser.add_argument("--image", type=words, metavar="FILE", help="a picture shown with the first message")
    parser.add_argument(
        "--out", type=words, default="out/chat", metavar="DIR",
        help="folder for the pictures the model draws (default: out/chat)",
    )  # fmt: skip
    add_model_options(parser)


@dataclass
class Conversation:
    """What has been said, and where the model's pictures go."""

    model: object
    out: Path
    seed: int
    messages: list[dict] = field(default_factory=list)
    attached: list = field(default_factory=list)  # pictures that wait for the next message
    pictures: int = 0

    def attach(self, path: str) -> None:
        from ..imagefile import read_image

        self.attached.append(read_image(path))

    def say(self, text: str) -> Iterator[str]:
        """Send a message; yield the answer line by line, pictures as the files they were written to."""
        content = [{"type": "image", "image": image} for image in self.attached]
        message = {"role": "user", "content": [*content, {"type": "text", "text": text}]}
        # The seed moves on with every turn: asking twice for a star gives two different stars.
        answer = self.model.chat([*self.messages, message], seed=self.seed + len(self.messages) // 2)
        self.messages += [message, answer]
        self.attached = []
        for part in _parts(answer):
            yield str(self._write(part["image"])) if part["type"] == "image" else part["text"]

    def _write(self, image) -> Path:
        from ..imagefile import png, write_files

        name = f"{self.pictures:04d}.png"
        self.pictures += 1
        return write_files({name: png(image)}, self.out)[0]

    def save(self) -> Path:
        """Write chat.json: every turn, pictures as [image]."""
        from ..imagefile import write_files

        turns = [
            {"role": m["role"], "text": " ".join(p.get("text", "[image]") for p in _parts(m))} for m in self.messages
        ]
        content = json.dumps(turns, indent=2, ensure_ascii=False) + "\n"
        return write_files({"chat.json": content.encode()}, self.out)[0]


def _parts(message: dict) -> list[dict]:
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def chat(args: argparse.Namespace) -> None:
    from ..imagefile import prepare_folder, read_image

    first = [read_image(args.image)] if args.image else []
    prepare_folder(args.out)
    opened = session.open_session(args)
    talk = Conversation(opened.model, Path(args.out), args.seed, attached=first)
    if args.message:
        for text in args.message:
            print(f"{PROMPT}{text}")
            _answer(talk, text)
        return
    if sys.stdin.isatty():
        print(f"{args.checkpoint} on {opened.place}. /image FILE shows a picture, /save keeps, /quit leaves.")
    for line in _lines():
        try:
            if not _turn(talk, line):
                return
        except ValueError as error:  # one bad line must not end a conversation
            session.note(f"  {error}")
        except FileNotFoundError as error:
            session.note(f"  {error}")


def _lines() -> Iterator[str]:
    """Lines from the keyboard (with editing and history where Python has them) or from a pipe."""
    if not sys.stdin.isatty():
        yield from (line.strip() for line in sys.stdin)
        return
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (importing it is what switches line editing on)
    while True:
        try:
            yield input(PROMPT).strip()
        except EOFError:
            print()
            return


def _turn(talk: Conversation, line: str) -> bool:
    """Handle one line; False ends the conversation."""
    command, _, rest = line.partition(" ")
    if command == "/quit":
        return False
    if command == "/image":
        if not rest.strip():
            raise ValueError("/image needs a file, for example: /image out/0000.png")
        talk.attach(rest.strip())
        print("  (shown with your next message)")
    elif command == "/new":
        talk.messages, talk.attached = [], []
        print("  (a new conversation)")
    elif command == "/save":
        print(f"  {talk.save()}")
    elif command.startswith("/"):
        raise ValueError(f"{command} is not a command here; there are /image FILE, /new, /save, /quit")
    elif line:
        _answer(talk, line)
    return True


def _answer(talk: Conversation, text: str) -> None:
    for line in talk.say(text):
        print(f"model: {line}", flush=True)
