"""What training and testing cost, in the paper's unit (tables 3 and 4): 1e8 FLOPs a sample, forward alone."""

from torch import Tensor, nn

from common.base.method import TrainingMethod
from common.distillation.ensembles import Peers, Snapshot
from common.distillation.teacher import Teacher
from common.metrics.macs import count_macs
from papers.one.one import ONE, ensemble_logits


class WholePass(nn.Module):
    """All branches of a network and its gate, in one module.

    Args:
        student: the target branch.
        one: the others.
    """

    def __init__(self, student: nn.Module, one: ONE) -> None:
        super().__init__()
        self.student, self.one = student, one

    def forward(self, inputs: Tensor) -> Tensor:
        """Images to the ensemble's logits z_e [b, classes]."""
        return ensemble_logits(*self.one.run(self.student, inputs))


def costs(student: nn.Module, method: TrainingMethod, shape: tuple[int, ...]) -> dict[str, float]:
    """`train_cost`, `test_cost` of the deployed network and `ensemble_cost` of all networks together.

    FLOPs are twice the multiply-adds of `count_macs`. Training costs a forward pass of all that takes part:
    the teachers too, all nets, the shared layers once. A snapshot ensemble trains one net and tests M. Where
    methods stand within each other, the ensemble is the outermost one's.

    Args:
        student: the deployed network.
        method: what helps its training.
        shape: of an example.
    """
    one = count_macs(student, shape)
    train = ensemble = one
    for part in reversed(method.chain()):
        if isinstance(part, ONE):
            train = ensemble = count_macs(WholePass(student, part), shape)
        elif isinstance(part, Peers):
            # each net learns from the teachers of the methods within
            train, ensemble = part.nets * train, part.nets * one
        elif isinstance(part, Snapshot):
            ensemble = part.snapshots * one
        elif isinstance(teacher := getattr(part, "teacher", None), Teacher):
            train += count_macs(teacher.model, shape)
    macs = {"train_cost": train, "test_cost": one, "ensemble_cost": ensemble}
    return {name: 2e-8 * count for name, count in macs.items()}
