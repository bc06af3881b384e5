"""Training data: a pool of scenes with cached features, batches for every stage, and shards on disk."""

from . import batches
from .pool import Pool
from .shards import build, inspect, read

__all__ = ["Pool", "batches", "build", "inspect", "read"]
