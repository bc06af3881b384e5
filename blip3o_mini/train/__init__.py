"""Sequential training: `loop` takes the steps, `stages` says what is trained on what, `run` does it all."""

from .loop import State, learning_rate, prepare_cpu, random_for, train
from .run import run
from .stages import plan

__all__ = ["State", "learning_rate", "plan", "prepare_cpu", "random_for", "run", "train"]
