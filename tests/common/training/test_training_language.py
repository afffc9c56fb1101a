"""Language modelling: perplexity to the ends of a text, windows of varying length, penalties."""

from itertools import islice

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from common.base.errors import UserError
from common.training.language import Passed, Penalties, VariedLoader, mean_loss, varied_lengths


class Bigram(nn.Module):
    """A table of probabilities of the next token; its state is the number of tokens read."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(words, words, dtype=torch.float64))
        self.seen: list[Tensor] = []

    def run(self, tokens: Tensor, state: Tensor | None) -> Passed:
        self.seen.append(tokens)
        before = torch.zeros(len(tokens), 1) if state is None else state
        outputs = self.table[tokens]
        return Passed(outputs, before + tokens.shape[1], outputs, outputs)


@pytest.mark.parametrize("length", [2, 3, 64, 65, 66, 200, 331])
@pytest.mark.parametrize("streams", [1, 3, 10])
def test_every_token_but_the_first_is_predicted_once_to_the_ends_of_the_text(
    length: int, streams: int
) -> None:
    model = Bigram(5)
    tokens = torch.randint(5, (length,), generator=torch.Generator().manual_seed(length))
    log = model.table.log_softmax(-1)
    wanted = -log[tokens[:-1], tokens[1:]].mean()
    assert mean_loss(model, tokens, streams) == pytest.approx(float(wanted.detach()), rel=1e-12)
    assert sum(part.numel() for part in model.seen) == length - 1


def test_a_text_of_one_token_is_one_line() -> None:
    with pytest.raises(UserError, match="a text of 1 tokens has none to predict"):
        mean_loss(Bigram(5), torch.tensor([3]), 1)


# --- windows


def test_windows_follow_one_another_and_cover_the_text() -> None:
    for epoch in range(3):
        windows = varied_lengths(5_000, 35, 7, epoch)
        ends = [start + length for start, length in windows]
        assert [start for start, _ in windows] == [0, *ends[:-1]] and ends[-1] == 4_999
        lengths = [length for _, length in windows[:-1]]
        assert min(lengths) >= 5 and max(lengths) <= 55
    assert varied_lengths(5_000, 35, 7, 0) != varied_lengths(5_000, 35, 7, 1)


def test_lengths_are_drawn_as_the_recipe_says() -> None:
    lengths = np.array([n for _, n in varied_lengths(400_000, 35, 0, 0)[:-1]])
    # int() takes half a token off
    full = lengths[lengths > 26]
    assert len(full) / len(lengths) == pytest.approx(0.95 * 0.96 + 0.002, abs=0.02)
    assert full.mean() == pytest.approx(34.9, abs=0.3) and full.std() == pytest.approx(4.6, abs=0.4)


def test_a_loader_of_varied_windows_goes_on_where_it_was() -> None:
    items = [item for block in islice(VariedLoader(500, 35, 3), 40) for item in block]
    part = VariedLoader(500, 35, 3)
    list(islice(part, 20))
    resumed = VariedLoader(500, 35, 3)
    resumed.load_state_dict(part.state_dict())
    assert [item for block in islice(resumed, 20) for item in block] == items[20:]
    assert part.epoch >= 1 and resumed.steps_per_epoch == len(varied_lengths(500, 35, 3, resumed.epoch))


def test_penalties_are_those_of_awd_lstm() -> None:
    outputs, dropped = torch.randn(2, 3, 5, 4)
    passed = Passed(dropped, dropped[:, -1], outputs, dropped)
    wanted = 2.0 * (dropped**2).mean() + 3.0 * ((outputs[:, 1:] - outputs[:, :-1]) ** 2).mean()
    torch.testing.assert_close(torch.as_tensor(Penalties(2.0, 3.0).of(passed)), wanted)
    assert Penalties(0.0, 0.0).of(passed) == 0.0
