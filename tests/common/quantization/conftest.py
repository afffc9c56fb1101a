"""Networks of the shelf."""

from model_toys import build_model

__all__ = ["build_model"]
