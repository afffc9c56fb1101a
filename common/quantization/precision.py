"""Computing in full precision where a trainer asks for less."""

from contextlib import AbstractContextManager, nullcontext

import torch


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Within it nothing is cast to 16 bits: a quantiser would otherwise see numbers rounded already."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)
