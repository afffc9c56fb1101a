"""Data sets from their configs."""

from data_toys import make

__all__ = ["make"]
