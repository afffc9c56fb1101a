"""Are two photographs of one person? Trained to classify identities, judged by pairs of other people."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import MeanMetric

from common.base.dataset import DataSet, SplitName
from common.base.modes import evaluation_mode
from common.base.task import Metrics, Task, penalty
from papers.dcp.faces import Faces


class FaceVerification(Task):
    """Angular softmax over the identities of the training set; the accuracy on LFW's pairs.

    A network has `identities` (`papers.dcp.angular_softmax`) and gives embeddings. Of the training and
    validation splits loss, accuracy (a fraction) and error (percent) of its nearest identities are measured;
    of the test split `test_lfw_accuracy` in percent (`lfw_accuracy`), the standard deviation of the folds,
    `test_lfw_deviation`, and `test_error`, what is left of 100 percent.
    """

    def fit_of(self, model: nn.Module, outputs: Tensor, inputs: Tensor, targets: Tensor | None) -> Tensor:
        assert targets is not None
        return _identities(model)(outputs, targets)

    def metrics(self, device: torch.device) -> Metrics:
        return {"loss": MeanMetric().to(device), "accuracy": MeanMetric().to(device)}

    def update(self, metrics: Metrics, model: nn.Module, inputs: Tensor, targets: Tensor | None) -> None:
        assert targets is not None
        embeddings = model(inputs)
        nearest = _identities(model).cosines(embeddings).argmax(dim=1)
        loss = self.fit_of(model, embeddings, inputs, targets) + penalty(model)
        metrics["loss"].update(loss, weight=len(inputs))
        metrics["accuracy"].update((nearest == targets).float())

    @torch.no_grad()
    def evaluate(self, model: nn.Module, data: DataSet, split: SplitName) -> dict[str, float]:
        """See above.

        Raises:
            UserError: files are missing or damaged.
        """
        if split != "test":
            found = super().evaluate(model, data, split)
            return found | {f"{split}_error": 100 * (1 - found[f"{split}_accuracy"])}
        assert isinstance(data, Faces)
        batches = data.batches("test", data.evaluation_batch)
        with evaluation_mode(model):
            features = torch.cat([mirrored_features(model, inputs).cpu() for inputs, _ in batches])
        pairs = data.pairs
        similarity = (features[pairs.first] * features[pairs.second]).sum(dim=1)
        folds = lfw_accuracy(similarity, pairs.same, pairs.fold)
        mean = float(folds.mean())
        return {
            "test_lfw_accuracy": 100 * mean,
            "test_lfw_deviation": 100 * float(folds.std(correction=0)),
            "test_error": 100 * (1 - mean),
        }


def mirrored_features(model: nn.Module, inputs: Tensor) -> Tensor:
    """The embeddings of faces and of their mirror images beside each other, of length 1: [b, 2 embedding]."""
    both = torch.cat([model(inputs), model(inputs.flip(-1))], dim=1).double()
    return functional.normalize(both, eps=torch.finfo(both.dtype).tiny)


def lfw_accuracy(similarity: Tensor, same: Tensor, fold: Tensor) -> Tensor:
    """The accuracy on each fold with the threshold that is best on the others, float64 [folds].

    Huang et al., "Labeled Faces in the Wild", 2007, view 2: a pair is said to be of one person where its
    similarity is above the threshold. Thresholds are tried half-way between neighbouring similarities and
    beyond both ends; of several best ones the mean is taken, as SphereFace's code does.

    Args:
        similarity: of each pair, [p], finite.
        same: whether it is of one person, bool [p].
        fold: the fold that it belongs to, 0, 1, ..., int64 [p]; two or more folds.
    """
    accuracies = []
    for number in range(int(fold.max()) + 1):
        held_out = fold == number
        threshold = _best_threshold(similarity[~held_out].double(), same[~held_out])
        accuracies.append(((similarity[held_out] > threshold) == same[held_out]).double().mean())
    return torch.stack(accuracies)


def _best_threshold(similarity: Tensor, same: Tensor) -> Tensor:
    """The mean of the thresholds by which most pairs are told right."""
    values, group = similarity.unique(return_inverse=True)
    # above the i-th smallest value: what is told right are the same ones from i on and the others below
    step = torch.zeros(len(values) + 1, dtype=torch.float64)
    step.index_add_(0, group + 1, 1 - 2 * same.double())
    right = int(same.sum()) + step.cumsum(0)
    middles = (values[1:] + values[:-1]) / 2
    thresholds = torch.cat([values[:1] - 1, middles, values[-1:] + 1])
    return thresholds[right == right.max()].mean()


def _identities(model: nn.Module) -> Any:
    return model.identities
