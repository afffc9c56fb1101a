"""NAO: what its three networks cost to train, and what the loop of language models costs beside a bare one.

    python -m benchmarks.nao_search

Encoder, predictor and decoder are trained on random networks of five nodes and eleven operations, sentences
of 60 tokens: with a decoder that runs over a whole sentence at once, as here, and with the same weights in
one that goes from token to token. A language model of NAO's recurrent cell is trained by `LanguageModule` and
by a plain loop over the same windows. In turn, in one process, on one thread; times are the processor's, by
the median. The whole fit is timed by the clock, on two threads.
"""

import logging
import statistics
import tempfile
import warnings
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from itertools import islice

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.figures import Figure, command, elapsed, seconds
from common.data.text.text_data import TextData
from common.data.text.wikitext import WikiText2
from common.training.averaging import NonMonotoneASGD
from common.training.language import LanguageModule, Penalties, VariedLoader, mean_loss
from common.training.schedules import constant
from papers.nao.epd import EPD, EPDSettings
from papers.nao.gradient_search import Fitting, epd_loss, fit_epd
from papers.nao.grammar import START
from papers.nao.operations import NAO
from papers.nao.recurrent_network import RecurrentNet
from papers.nao.space import ConvSpace

POOL, EPOCHS, BATCH, ROUNDS = 600, 1000, 50, 5
# the goals: seconds of a whole fit, times as fast as the loop over tokens, times a bare loop
SECONDS, FASTER, SHARE = 240.0, 2.0, 1.1


class StepwiseEPD(EPD):
    """The same three networks, with a decoder that goes from token to token."""

    def write_logits(self, tokens: Tensor, memory: Tensor) -> Tensor:
        embedding, looked_at = self.embed(memory)[None], self._looked_at(memory)
        state, found = (embedding, embedding), []
        token = torch.full_like(tokens[:, 0], START)
        for position in range(self.length):
            outputs, state = self.decoder(self.write(token)[:, None], state)
            found.append(self._attend(outputs, looked_at))
            token = tokens[:, position]
        return torch.cat(found, 1)


def three_networks(pool: int, epochs: int, rounds: int) -> tuple[float, float]:
    """(seconds of a fit of all epochs on two threads, how many times as fast as the loop over tokens)."""
    space = ConvSpace(5, NAO, tokens="split")
    random = np.random.default_rng(0)
    tokens = space.grammar.tensor([space.sample(random) for _ in range(pool)])
    targets = torch.rand(pool, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    # the first official code's sizes
    ours = EPD(space.grammar, EPDSettings(32, 96, 0, 1, 3, 0.1, 0.0, 0.0))
    peer = deepcopy(ours)
    peer.__class__ = StepwiseEPD
    batch = slice(0, min(BATCH, pool))
    with torch.no_grad():
        pair = [epd_loss(one.eval(), tokens[batch], targets[batch], 0.8) for one in (ours, peer)]
    torch.testing.assert_close(pair[0], pair[1])
    fitting = Fitting(1, BATCH, 1e-3, 1e-4, 5.0, 0.8, False)
    calls: dict[str, Callable[[], object]] = {
        name: partial(fit_epd, one, space.grammar, tokens, targets, fitting, 0)
        for name, one in (("ours", ours), ("peer", peer))
    }
    times = seconds(calls, False, rounds)
    pairs = zip(times["ours"], times["peer"], strict=True)
    torch.set_num_threads(2)
    try:
        epoch = statistics.median(elapsed(calls["ours"]) for _ in range(rounds))
    finally:
        torch.set_num_threads(1)
    return epochs * epoch, statistics.median(b / a for a, b in pairs)


def text(steps: int) -> TextData:
    """Random tokens for about so many windows."""
    data = WikiText2(
        kind="language_modelling", data_dir="data", source="synthetic", limit=20 * 35 * steps, verify=True,
        batch_size=20, bptt=35,
    )  # fmt: skip
    # a vocabulary of a small text
    data.classes = 2000
    data.setup()
    for split, tokens in data._tokens.items():
        data._tokens[split] = (tokens % 2000)[: 200 if split != "train" else None]
    data.move("cpu")
    return data


def language(steps: int, size: int, rounds: int) -> float:
    """The time of an epoch by `LanguageModule` over that of a bare loop, its validation included in both."""
    data = text(steps)
    drops = {"dropout": 0.2, "dropout_hidden": 0.05, "dropout_x": 0.2, "dropout_input": 0.1}
    torch.manual_seed(0)
    model = RecurrentNet(
        shape=(35,), classes=2000, cell="nao", size=size, tied=True, first_state=False, dropout_embedding=0.0,
        test_streams=10, **drops,
    )  # fmt: skip

    def by_module() -> None:
        module = LanguageModule(
            data=data,
            model=deepcopy(model),
            make_model=lambda: model,
            method=partial(NonMonotoneASGD, lr=1.0),
            seed=0,
            epochs=1.0,
            test_every=None,
            schedule=constant,
            pixels="mean",
            measure_gradient=False,
            varied_bptt=True,
            activation_penalty=0.0,
            temporal_penalty=0.001,
        )
        module.limit_gradients(0.25)
        with tempfile.TemporaryDirectory() as folder:
            trainer = pl.Trainer(
                accelerator="cpu", max_epochs=-1, logger=False, enable_checkpointing=False,
                enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
            )  # fmt: skip
            trainer.fit(module)

    def bare() -> None:
        mine = deepcopy(model).train()
        optimizer, state = torch.optim.SGD(mine.parameters(), lr=1.0, foreach=True), None
        streams = data.streams("train", 20)
        loader = VariedLoader(streams.shape[1], 35, 0)
        for (item,) in islice(loader, loader.steps_per_epoch):
            start, length = item
            passed = mine.run(streams[:, start : start + length], state)
            state = passed.state.detach()
            targets = streams[:, start + 1 : start + length + 1]
            loss = functional.cross_entropy(passed.logits.flatten(0, 1), targets.flatten())
            optimizer.zero_grad(set_to_none=True)
            (loss + Penalties(0.0, 0.001).of(passed)).backward()
            nn.utils.clip_grad_norm_(mine.parameters(), 0.25)
            optimizer.param_groups[0]["lr"] = length / 35
            optimizer.step()
        mean_loss(mine, data.tokens("validation"), 10)

    times = seconds({"ours": by_module, "bare": bare}, False, rounds)
    return statistics.median(a / b for a, b in zip(times["ours"], times["bare"], strict=True))


def main(tiny: bool = False) -> dict[str, Figure]:
    """All three figures."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    whole, faster = three_networks(*((4, 2, 1) if tiny else (POOL, EPOCHS, ROUNDS)))
    share = language(*((2, 4, 1) if tiny else (60, 64, 3)))
    return {
        "fit": Figure(whole, "s", "nao: encoder, predictor, decoder, 600 networks, 1,000 epochs, 2 threads",
                      at_most=SECONDS),
        "sentence": Figure(
            faster, "x as fast", "nao: an epoch of the three networks, sentences of 60 tokens",
            "a decoder that goes from token to token", at_least=FASTER,
        ),
        "language": Figure(
            share, "x its time", "language model of NAO's cell, 64 numbers: an epoch and its validation",
            "a bare PyTorch loop", at_most=SHARE,
        ),
    }  # fmt: skip


if __name__ == "__main__":
    command(main)
