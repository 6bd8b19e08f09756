"""A person's file in and out of the formats of others."""

from .embeddings import FORMATS, left_out, read_person, write_person
from .kohya import read_kv, write_kv

__all__ = ["FORMATS", "left_out", "read_kv", "read_person", "write_kv", "write_person"]
