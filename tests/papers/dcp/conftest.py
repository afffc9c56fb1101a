"""Data sets from their configs, and no test asks the internet."""

from data_toys import make, offline

__all__ = ["make", "offline"]
