"""Models from their configs, and small real photographs."""

from model_toys import build_model, photographs, photographs_pass

__all__ = ["build_model", "photographs", "photographs_pass"]
