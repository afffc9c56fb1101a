"""The loss of a chain of tags with its gradient: a batch at once beside a Python loop over its sentences.

Run: python -m benchmarks.crf_loss. 32 sentences of 60 words and 20 tags, in turn; the loop's recursion is a
graph of `logsumexp`, as taggers have it that take one sentence at a time. The bound is 20 times as fast.
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.figures import Figure, command
from common.models.crf import ConditionalRandomField

ROUNDS = 9


def looped(crf: ConditionalRandomField, emissions: Tensor, tags: Tensor) -> Tensor:
    """-log p of each sentence [b], one after the other, all of full length."""
    losses = []
    for scores, known in zip(emissions, tags, strict=True):
        alpha = crf.start + scores[0]
        total = crf.start[known[0]] + scores[0, known[0]]
        for t in range(1, len(scores)):
            alpha = (alpha[:, None] + crf.transitions).logsumexp(0) + scores[t]
            total = total + crf.transitions[known[t - 1], known[t]] + scores[t, known[t]]
        losses.append((alpha + crf.end).logsumexp(0) - total - crf.end[known[-1]])
    return torch.stack(losses)


def main(tiny: bool = False) -> dict[str, Figure]:
    """Measure both in turn, forwards and backwards."""
    sentences, length, count, rounds = (2, 3, 4, 1) if tiny else (32, 60, 20, ROUNDS)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    crf = ConditionalRandomField(count)
    emissions = torch.randn(sentences, length, count, requires_grad=True)
    tags = torch.randint(count, (sentences, length))
    lengths = torch.full((sentences,), length)
    ways: dict[str, Callable[[], Tensor]] = {
        "batched": lambda: crf(emissions, tags, lengths),
        "looped": lambda: looped(crf, emissions, tags),
    }
    assert torch.allclose(ways["batched"](), ways["looped"](), rtol=1e-4)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, loss in ways.items():
            start = time.perf_counter()
            loss().mean().backward()
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(times[1:]) for name, times in seconds.items()}
    for name, value in medians.items():
        print(f"{name:10} {1e3 * value:8.2f} ms a loss with its gradient")
    return {
        "loop": Figure(
            medians["looped"] / medians["batched"],
            "x as fast",
            "loss of a chain of tags with its gradient, 32 sentences of 60 words and 20 tags",
            "a Python loop over sentences",
            at_least=20.0,
        )
    }


if __name__ == "__main__":
    command(main)
