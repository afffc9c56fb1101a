"""How sparse a network is: weights that are not zero, layer by layer, and what they take in a file."""

import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

BYTES = 4  # of one float32


def is_weight(tensor: Tensor) -> bool:
    """Whether a parameter is a weight, of two or more dimensions: no bias, and no scale of normalisation."""
    return tensor.dim() >= 2


def weights(network: nn.Module) -> dict[str, nn.Parameter]:
    """The weights of a network by name; what several layers share once."""
    return {name: p for name, p in network.named_parameters() if is_weight(p)}


def labels(network: nn.Module) -> dict[str, str]:
    """What the tables call each weight, by its name: conv1, conv2, ..., fc1, fc2, ..., in the network's
    order.

    Weights of other layers are called other1, ...
    """
    kinds = {
        f"{name}.weight": "conv" if isinstance(layer, _ConvNd) else "fc"
        for name, layer in network.named_modules()
        if isinstance(layer, _ConvNd | nn.Linear)
    }
    counts = {"conv": 0, "fc": 0, "other": 0}
    found = {}
    for name in weights(network):
        kind = kinds.get(name, "other")
        counts[kind] += 1
        found[name] = f"{kind}{counts[kind]}"
    return found


def sparsity(network: nn.Module, files: bool = True) -> dict[str, float]:
    """What the tables show of a network.

    Returns:
        nonzero: weights that are not zero; nonzero_thousands, nonzero_millions: the same in the tables'
            units.
        nonzero_parameters: biases and scales too.
        compression: weights / nonzero.
        memory_kb, memory_mb: 4 bytes times nonzero, the tables' rule, in 1e3 and 1e6 bytes.
        csr_kb, dense_kb: what the file of `save_sparse` takes, and 4 bytes times all parameters, in 1e3
            bytes; only with `files`.
        density_conv1, density_fc1, ...: percent of a layer's weights that are not zero (`labels`);
            density_conv, density_fc: of all such layers together.
    """
    own, names = weights(network), labels(network)
    kept = {name: int(p.count_nonzero()) for name, p in own.items()}
    total, nonzero = sum(p.numel() for p in own.values()), sum(kept.values())
    found: dict[str, float] = {
        "nonzero": nonzero,
        "nonzero_thousands": nonzero / 1e3,
        "nonzero_millions": nonzero / 1e6,
        "nonzero_parameters": sum(int(p.count_nonzero()) for p in network.parameters()),
        "compression": total / max(1, nonzero),
        "memory_kb": BYTES * nonzero / 1e3,
        "memory_mb": BYTES * nonzero / 1e6,
    }
    if files:
        found |= {
            "csr_kb": sparse_bytes(network) / 1e3,
            "dense_kb": BYTES * sum(p.numel() for p in network.parameters()) / 1e3,
        }
    found |= {f"density_{names[name]}": 100 * kept[name] / p.numel() for name, p in own.items()}
    for kind in ("conv", "fc"):
        of_kind = [name for name in own if names[name].startswith(kind)]
        if of_kind:
            share = sum(kept[name] for name in of_kind) / sum(own[name].numel() for name in of_kind)
            found[f"density_{kind}"] = 100 * share
    return found


def save_sparse(network: nn.Module, file: Path | BinaryIO) -> None:
    """Write a network's state as a NumPy archive, its weights as CSR (scipy.sparse), all else dense.

    A weight [out, ...] is the matrix [out, rest]: values float32 (or the weight's own type), column numbers
    in the smallest unsigned type that holds them, row pointers int32; not compressed further.

    Args:
        network: on any device.
        file: a path, or a binary file.
    """
    arrays: dict[str, Any] = {}
    sparse = set(weights(network))
    for name, tensor in network.state_dict().items():
        array = tensor.detach().cpu().numpy()
        if name not in sparse:
            arrays[f"dense/{name}"] = array
            continue
        matrix = csr_array(array.reshape(len(array), -1))
        arrays[f"shape/{name}"] = np.array(array.shape, dtype=np.int64)
        arrays[f"data/{name}"] = matrix.data
        arrays[f"indices/{name}"] = matrix.indices.astype(np.min_scalar_type(max(0, matrix.shape[1] - 1)))
        arrays[f"indptr/{name}"] = matrix.indptr.astype(np.int32)
    np.savez(file, allow_pickle=False, **arrays)


def load_sparse(file: Path | BinaryIO) -> dict[str, Tensor]:
    """The state dict that `save_sparse` wrote, dense again, for `load_state_dict`; executes nothing."""
    with np.load(file, allow_pickle=False) as archive:
        return dict(_read(archive))


def _read(archive: Any) -> Iterator[tuple[str, Tensor]]:
    for key in archive.files:
        kind, _, name = key.partition("/")
        if kind == "dense":
            yield name, torch.from_numpy(archive[key])
        elif kind == "shape":
            shape = tuple(map(int, archive[key]))
            parts = tuple(archive[f"{part}/{name}"] for part in ("data", "indices", "indptr"))
            matrix = csr_array(parts, shape=(shape[0], math.prod(shape[1:])))
            yield name, torch.from_numpy(matrix.toarray()).reshape(shape)


def sparse_bytes(network: nn.Module) -> int:
    """The size of the file that `save_sparse` writes."""
    with tempfile.TemporaryFile() as file:
        save_sparse(network, file)
        return file.tell()
