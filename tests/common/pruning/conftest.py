"""Models from their configs."""

from model_toys import build_model

__all__ = ["build_model"]
