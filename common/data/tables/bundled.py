"""The small real tables that come with scikit-learn: no file, no network.

They have no official test set: a stratified 20% holdout, drawn once with seed 0, serves as one.
"""

from typing import ClassVar

import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from torch import Tensor

from common.data.shared.in_memory import Part, Split, TensorData
from common.data.shared.subsets import complement, stratified_subset


def holdout(examples: Split, labels: Tensor | None, test_size: int, part: Part) -> Split:
    """The fixed holdout of `test_size` examples (seed 0, stratified by `labels`), or all the others."""
    total = len(examples)
    test = stratified_subset(labels, total, test_size, torch.Generator().manual_seed(0))
    return examples.take(test if part == "test" else complement(test, total))


class BreastCancer(TensorData):
    """569 tumours by 30 measures of cell nuclei: malignant 0 or benign 1 (UCI, Wisconsin diagnostic)."""

    NAME: ClassVar = "breast_cancer"
    KIND: ClassVar = "tabular_classification"
    SHAPE: ClassVar = (30,)
    CLASSES: ClassVar = 2
    CLASS_NAMES: ClassVar = ("malignant", "benign")
    TRAIN_SIZE: ClassVar = 455
    TEST_SIZE: ClassVar = 114

    def read(self, part: Part) -> Split:
        """All of one part of the fixed holdout split."""
        inputs, targets = load_breast_cancer(return_X_y=True)
        labels = torch.from_numpy(targets).long()
        return holdout(Split(torch.from_numpy(inputs).float(), labels), labels, self.TEST_SIZE, part)


class Wine(TensorData):
    """178 Italian wines by 13 chemical measures: three cultivars (UCI)."""

    NAME: ClassVar = "wine"
    KIND: ClassVar = "tabular_classification"
    SHAPE: ClassVar = (13,)
    CLASSES: ClassVar = 3
    CLASS_NAMES: ClassVar = ("class_0", "class_1", "class_2")
    TRAIN_SIZE: ClassVar = 142
    TEST_SIZE: ClassVar = 36

    def read(self, part: Part) -> Split:
        """All of one part of the fixed holdout split."""
        inputs, targets = load_wine(return_X_y=True)
        labels = torch.from_numpy(targets).long()
        return holdout(Split(torch.from_numpy(inputs).float(), labels), labels, self.TEST_SIZE, part)


class Diabetes(TensorData):
    """442 patients by 10 measures, unscaled: progression of diabetes in a year (Efron et al. 2004)."""

    NAME: ClassVar = "diabetes"
    KIND: ClassVar = "regression"
    SHAPE: ClassVar = (10,)
    CLASSES: ClassVar = None
    TRAIN_SIZE: ClassVar = 354
    TEST_SIZE: ClassVar = 88

    def read(self, part: Part) -> Split:
        """All of one part of the fixed holdout split; targets float32, 25 to 346."""
        inputs, targets = load_diabetes(return_X_y=True, scaled=False)
        examples = Split(torch.from_numpy(inputs).float(), torch.from_numpy(targets).float())
        return holdout(examples, None, self.TEST_SIZE, part)
