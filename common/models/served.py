"""Networks as they are served outside of torch: ONNX, in onnxruntime."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def onnx_session(model: Path | bytes, threads: int) -> Any:
    """An ONNX model, of a file or in memory, in onnxruntime on the CPU with that many threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    given = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Within it torch's exporter of ONNX keeps its own notes to itself: they say nothing about a network."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
