"""Linear probes: what a linear layer can read off one vector per cell is what the vector plainly says.

    P(word | vector) = softmax(W · vector + b), fitted by maximum likelihood with a little weight decay

Five probes are fitted on seen scenes: is anything in the cell; its shape, colour and size if there is; the
background, from the mean over cells; and, by least squares, where inside its cell an object stands. Lesson 10.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

from ..world.parse import Reading
from ..world.scene import BACKGROUNDS, CELLS, COLOURS, SHAPES, SIZES, Scene

DECAY = 1e-4  # weight decay per sample, on standardised inputs
STEPS = 100  # of L-BFGS
ASPECTS = {"shape": SHAPES, "colour": COLOURS, "size": SIZES}
NOTHING = -1


@dataclass(frozen=True)
class Board:
    """Scenes as arrays: what stands in each of the nine cells, as indices into SHAPES, COLOURS and SIZES."""

    is_there: np.ndarray  # (n, 9)
    shape: np.ndarray  # (n, 9), NOTHING where unknown
    colour: np.ndarray  # (n, 9)
    size: np.ndarray  # (n, 9)
    background: np.ndarray  # (n,), NOTHING where unknown
    is_clean: np.ndarray  # (n,), False where something is there that is no object
    offset: np.ndarray | None  # (n, 9, 2) in pixels from the middle of the cell; None: not told


def board_of(shown: Sequence[Scene | Reading]) -> Board:
    """What scenes are, or what was read off pictures."""
    n = len(shown)
    words = {name: np.full((n, CELLS), NOTHING) for name in ASPECTS}
    offset = np.zeros((n, CELLS, 2))
    for k, scene in enumerate(shown):
        for o in scene.objects:
            for name, options in ASPECTS.items():
                words[name][k, o.cell] = options.index(getattr(o, name))
            offset[k, o.cell] = o.dx, o.dy
    background = [BACKGROUNDS.index(s.background) if s.background else NOTHING for s in shown]
    is_clean = [getattr(s, "unreadable", 0) == 0 for s in shown]
    return Board(
        words["shape"] != NOTHING, **words, background=np.array(background), is_clean=np.array(is_clean), offset=offset
    )


class LinearMap:
    """Inputs (…, W) are standardised, then scored linearly: (…, K)."""

    def __init__(self, inputs: np.ndarray, weights_of):
        """`weights_of` makes weights (W + 1, K) from the standardised inputs with a column of ones."""
        self.mean, self.scale = inputs.mean(0), inputs.std(0) + 1e-6
        self.weights = weights_of(self._standard(inputs))

    def _standard(self, inputs: np.ndarray) -> np.ndarray:
        ones = np.ones((*inputs.shape[:-1], 1))
        return np.concatenate([(inputs - self.mean) / self.scale, ones], axis=-1)

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        return self._standard(inputs) @ self.weights


def fit_classes(inputs: np.ndarray, labels: np.ndarray, classes: int) -> LinearMap:
    """Multinomial logistic regression from inputs (n, W) to labels (n,)."""
    truth = np.eye(classes)[labels]

    def weights_of(x: np.ndarray) -> np.ndarray:
        def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
            weights = flat.reshape(x.shape[1], classes)
            log_shares = log_softmax(x @ weights, axis=1)
            value = -(truth * log_shares).sum() / len(x) + DECAY * (flat**2).sum() / 2
            slope = x.T @ (np.exp(log_shares) - truth) / len(x) + DECAY * weights
            return value, slope.ravel()

        start = np.zeros(x.shape[1] * classes)
        found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": STEPS})
        return found.x.reshape(x.shape[1], classes)

    return LinearMap(inputs, weights_of)


def fit_numbers(inputs: np.ndarray, numbers: np.ndarray) -> LinearMap:
    """Least squares from inputs (n, W) to numbers (n, K)."""
    return LinearMap(inputs, lambda x: np.linalg.lstsq(x, numbers, rcond=None)[0])


class CellProbe:
    """Reads a board off one vector per cell, linearly; the same weights for every cell."""

    def __init__(self, vectors: np.ndarray, scenes: Sequence[Scene]):
        """Fit on vectors (n, 9, W) of n scenes."""
        if vectors.ndim != 3 or vectors.shape[:2] != (len(scenes), CELLS):
            raise ValueError(
                f"the probes read one vector for each of {CELLS} cells, ({len(scenes)}, {CELLS}, W), "
                f"not {vectors.shape}; they fit models of the toy family"
            )
        board = board_of(scenes)
        flat, is_there = vectors.reshape(-1, vectors.shape[2]), board.is_there.ravel()
        inside = flat[is_there]
        self.is_there = fit_classes(flat, is_there.astype(int), 2)
        self.words = {
            name: fit_classes(inside, getattr(board, name)[board.is_there], len(options))
            for name, options in ASPECTS.items()
        }
        self.background = fit_classes(vectors.mean(1), board.background, len(BACKGROUNDS))
        self.offset = fit_numbers(inside, board.offset[board.is_there])

    def read(self, vectors: np.ndarray, *, has_offset: bool = False) -> Board:
        """The likeliest board; shape, colour and size are named for every cell, empty or not."""
        return Board(
            self.is_there(vectors).argmax(-1) == 1,
            **{name: score(vectors).argmax(-1) for name, score in self.words.items()},
            background=self.background(vectors.mean(1)).argmax(-1),
            is_clean=np.ones(len(vectors), bool),
            offset=self.offset(vectors) if has_offset else None,
        )
