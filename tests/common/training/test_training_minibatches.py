from itertools import islice
from typing import Any

import torch

from common.data.images.digits import Digits
from common.runs.compose import compose
from common.training.minibatches import minibatches


def test_minibatches_are_those_of_the_loader_epoch_after_epoch() -> None:
    config, _ = compose(["paper=yogi", "dataset=digits", "dataset.limit=50", "dataset.batch_size=20"])
    options: dict[str, Any] = {key: value for key, value in config.dataset.items() if key != "_target_"}
    data = Digits(**options)
    data.setup()
    found = list(islice(minibatches(data, seed=3), 6))
    # two whole batches an epoch, and the ten examples that are left
    assert [len(inputs) for inputs, _ in found] == [20, 20, 10] * 2
    epochs = [torch.cat([inputs for inputs, _ in found[at : at + 3]]) for at in (0, 3)]
    rows = [{tuple(row) for row in epoch.flatten(1).tolist()} for epoch in epochs]
    assert rows[0] == rows[1] and not torch.equal(*epochs)
    again = list(islice(minibatches(data, seed=3), 6))
    assert all(torch.equal(one[0], other[0]) for one, other in zip(found, again, strict=True))
