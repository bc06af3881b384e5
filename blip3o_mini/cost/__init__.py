"""What a model costs, from its config alone: parameters, operations, memory, and the machines it fits on.

Pure arithmetic (nothing here imports torch), so the published sizes can be judged on any laptop before
anything is downloaded. Parameters are exact; operations leave out norms and activations (below 1 %);
memory is an estimate whose parts are named, to be compared with what a run really takes. Lesson 11.
"""

from .report import describe, table
from .totals import (
    Memory,
    costs,
    fits,
    generation_flops,
    inference_memory,
    inference_parameters,
    parameters,
    picture_flops,
    reading_flops,
    training_memory,
    word_flops,
)

__all__ = [
    "Memory", "costs", "describe", "fits", "generation_flops", "inference_memory", "inference_parameters",
    "parameters", "picture_flops", "reading_flops", "table", "training_memory", "word_flops",
]  # fmt: skip
