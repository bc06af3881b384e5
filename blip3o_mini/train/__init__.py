"""Sequential training: `loop` takes the steps, `stages` says what is trained on what, `run` does it all."""

from .loop import State, fast_cpu, learning_rate, random_for, train
from .run import run
from .stages import plan

__all__ = ["State", "fast_cpu", "learning_rate", "plan", "random_for", "run", "train"]
