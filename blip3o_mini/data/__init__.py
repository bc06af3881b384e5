"""Training data: a pool of scenes with cached features, batches for every stage; shards, and streams of real data."""

from . import batches
from .inspection import inspect
from .mixture import Recipe
from .opening import Source, find
from .pool import Pool
from .records import Fault
from .samples import Sample
from .shards import build
from .stream import Batches, Captioned, Stream, fault_log, merge_states
from .writing import add_features, repack, write_shards

__all__ = [
    "Batches", "Captioned", "Fault", "Pool", "Recipe", "Sample", "Source", "Stream", "add_features", "batches", "build",
    "fault_log", "find", "inspect", "merge_states", "repack", "write_shards",
]  # fmt: skip
