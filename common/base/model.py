"""What training asks of a network that a config names: what it must say, and what more it may say."""

from typing import Any, Literal, Protocol

from torch import Tensor

ModelTask = Literal[
    "classification",
    "regression",
    "reconstruction",
    "segmentation",
    "multi_task",
    "online",
    "own",
    "detection",
    "tagging",
    "translation",
]


class Model(Protocol):
    """A network that can be trained by minibatches: an `nn.Module` that says what it is for.

    Its class takes `shape`, of one input, and `classes`, or None, beside the settings of its config.
    Required:

    - `task`, on the class, so that it is known before anything is built: which loss and metrics it is trained
      and judged by (`common.training.task_of`), which kinds of data sets it goes with (`common.runs.runner`),
      and whether it can be exported (`common.runs.export`).
    - `forward(inputs)`: logits [b, classes] of a classification, predictions [b] of a regression, logits of
      the pixels of a reconstruction, [b, classes, h, w] of a segmentation, offsets [b, P, 4] and logits
      [b, P, classes + 1] of a detection, scores [b, T, classes] of a tagging, a list with an output for
      each of several tasks, [b, T, V] of the next tokens of packed pairs (`common.base.sequence`);
      whatever its own losses take of a model whose task is "own".

    Optional, read where it is wanted, and left alone by all else:

    - `features`: names, as in `get_submodule`, of the modules that end its stages, in order. Buys
      attention transfer and factor transfer, as student and as teacher (`common.models.features`).
    - `sources(images)`, `source_channels`: the maps that a detector sees, each coarser than the last, and
      the channels of each. Buys `model=ssd`, as its backbone (`common.detection.ssd`).
    - `priors`: of a detection, which must have them: a buffer [P, 4], (cx, cy, w, h) relative to the image,
      that offsets are counted from (`common.detection.coding`).
    - `start_from(weights)`: takes the weights of `start=` over, a state dict of this network or of another
      one, as of a classifier for a detector; returns what starts anew, in words, or None, and raises
      UserError. Without it `start=` takes runs of the same model alone.
    - `split(unshared)`: the network as two modules, cut before its last stages. Buys ONE, whose branches
      share the lower part (`common.models.split`).
    - `penalty()`: a scalar. Is added to the loss of training and to the loss that is measured, by every
      method (`common.base.task.penalty`, `papers.spider.problems.network`).
    - `project()`: puts the parameters back into their feasible set. Is called after each step
      (`common.training.tasks.project`).
    - `loss(outputs, targets)`: of a regression. Stands in the place of the mean squared error.
    - `class_weights`, `test_scales`, `test_flip`: of a segmentation: the c of ENet's weights of classes, or
      None; at which scales, and whether mirrored too, images are looked at where it is judged.
    - `crf`, `words`: of a tagging: the `common.models.crf.ConditionalRandomField` that its tags are a chain
      of, without which they are told apart word by word; how many numbers of words it can take.
    - `outputs_of_tasks`, `regression`: of several tasks: the numbers of outputs of each, which it must have,
      and the loss of numbers, "l1" or "mse" (`common.training.multi_task`).
    - `label_smoothing`, `beam`, `length_penalty`: of a translation: the share of a target's probability that
      is spread over the vocabulary in training, and the decoding that is judged, 0, 1 and 0 without them.
      `begin(source)`, `step(tokens, state)`: keep what is computed from token to token
      (`common.models.decoding.Decoder`); without them each token computes all anew.
    - `loss_of(outputs, inputs, targets)`, `metrics_of(outputs, inputs, targets)`: of the task "own", which
      must have both (`common.training.tasks.Own`), or in their place
    - `own_task(data)`: a `common.base.task.Task`, for what is no mean over batches (accuracies on pairs). One
      that gives scores [b, 2, C] of the first and the last word of answers to `common.base.passages` has it
      from `common.training.answering.AnswersQuestions`.
    """

    @property
    def task(self) -> ModelTask:
        """What it is for."""

    def __call__(self, inputs: Tensor) -> Any:
        """`forward`, with the hooks that are registered."""
