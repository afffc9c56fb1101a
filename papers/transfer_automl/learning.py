"""How a controller learns from rewards: REINFORCE, PPO or priority-queue training, R replicates at once.

With B trials of a batch, advantages A_b and entropies H_b, each replicate descends

    reinforce  -(1/B) sum_b A_b log p(a_b) - beta (1/B) sum_b H_b                       (Williams 1992)
    ppo        -(1/N) sum_n min(r_n A_n, clip(r_n, 1 - eps, 1 + eps) A_n) - beta (1/N) sum_n H_n
               over the N trials of the last batches, r_n = p(a_n) / p_when_sampled(a_n)
               (Schulman et al. 2017)
    pqt        -(1/Q) sum_q log p(a_q) - beta (1/Q) sum_q H_q
               over the best K different designs of each task so far (Abolafia et al. 2018)

by Adam, its gradient scaled down to a norm of at most `clip`. Sums go over trials, not over tasks: a batch
that holds several tasks averages over them. Where all advantages of a replicate are 0 it does not learn at
all.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.optim.adam import adam

from common.base.errors import UserError
from common.base.limits import require
from papers.transfer_automl.advantage import AdvantageNorm, RunningAdvantage
from papers.transfer_automl.controller import TASK_WEIGHTS, Controller

Algorithm = Literal["reinforce", "ppo", "pqt"]
Trained = Literal["all", "embedding"]
BETAS, ADAM_EPSILON = (0.9, 0.999), 1e-8
# the rewards of a task after which they are called constant where they are
CONSTANT_AFTER = 20


class Batch(NamedTuple):
    """Trials of all replicates.

    Attributes:
        tasks: int64 [R, B].
        codes: int64 [R, B, L].
        log_p: when they were sampled, [R, B].
        weights: what each trial's log p weighs: advantages, [R, B].
        valid: whether there is a finite reward, bool [R, B].
    """

    tasks: Tensor
    codes: Tensor
    log_p: Tensor
    weights: Tensor
    valid: Tensor

    @classmethod
    def joined(cls, batches: Sequence["Batch"]) -> "Batch":
        """All trials as one batch."""
        return cls(*(torch.cat(parts, 1) for parts in zip(*batches, strict=True)))


class LearningSettings(NamedTuple):
    """How a controller learns.

    Attributes:
        algorithm: see the module.
        norm: of advantages, see `papers.transfer_automl.advantage`.
        lr: of Adam.
        entropy: beta.
        clip: of the norm of a replicate's gradient; None: any.
        decay, wait, max_advantage: see `RunningAdvantage`.
        ppo_clip: eps.
        ppo_passes: steps on the bank after each batch.
        ppo_bank: batches that it holds.
        queue: K.
        train: all weights, or the embeddings of tasks alone.
    """

    algorithm: Algorithm = "reinforce"
    norm: AdvantageNorm = "std"
    lr: float = 2e-3
    entropy: float = 0.01
    clip: float | None = 5.0
    decay: float = 0.95
    wait: int = 5
    max_advantage: float = 5.0
    ppo_clip: float = 0.2
    ppo_passes: int = 4
    ppo_bank: int = 4
    queue: int = 10
    train: Trained = "all"


def reinforce_loss(log_p: Tensor, entropy: Tensor, batch: Batch, beta: float) -> Tensor:
    """Of each replicate, [R]: log_p and entropy [R, B] are the controller's now."""
    return -_mean(batch.weights * log_p, batch.valid) - beta * _mean(entropy, batch.valid)


def ppo_loss(log_p: Tensor, entropy: Tensor, batch: Batch, beta: float, clip: float) -> Tensor:
    """Of each replicate, [R]."""
    ratio = (log_p - batch.log_p).exp()
    gain = torch.minimum(ratio * batch.weights, ratio.clamp(1 - clip, 1 + clip) * batch.weights)
    return -_mean(gain, batch.valid) - beta * _mean(entropy, batch.valid)


def pqt_loss(log_p: Tensor, entropy: Tensor, batch: Batch, beta: float) -> Tensor:
    """Of each replicate, [R]; the batch holds what is in the queues."""
    return -_mean(log_p, batch.valid) - beta * _mean(entropy, batch.valid)


def _mean(values: Tensor, valid: Tensor) -> Tensor:
    """Over the trials of each replicate that are valid: [R, B] -> [R]; 0 where none is."""
    kept = torch.where(valid, values, torch.zeros_like(values))
    return kept.sum(1) / valid.sum(1).clamp_min(1)


class BestDesigns:
    """The K best different designs of each replicate and task.

    Attributes:
        rewards: float64 [R, T, K], -inf where there is none yet.
        codes: int64 [R, T, K, L].
    """

    def __init__(self, replicates: int, tasks: int, size: int, length: int) -> None:
        self.rewards = torch.full((replicates, tasks, size), -math.inf, dtype=torch.float64)
        self.codes = torch.zeros(replicates, tasks, size, length, dtype=torch.int64)

    def add(self, tasks: Tensor, codes: Tensor, rewards: Tensor) -> None:
        """Take in trials [R, B] one after the other; of one design the best reward counts."""
        for b in range(tasks.shape[1]):
            self._add(tasks[:, b], codes[:, b], rewards[:, b].to(torch.float64))

    def _add(self, task: Tensor, code: Tensor, reward: Tensor) -> None:
        row = torch.arange(len(task))
        kept, known = self.rewards[row, task], self.codes[row, task]
        same = (known == code[:, None]).all(-1) & kept.isfinite()
        # the same design's place, else that of the worst
        place = torch.where(same.any(1), same.long().argmax(1), kept.argmin(1))
        better = reward.isfinite() & (reward > kept[row, place])
        row, task, place = row[better], task[better], place[better]
        self.rewards[row, task, place] = reward[better]
        self.codes[row, task, place] = code[better]

    def batch(self) -> Batch:
        """All that is kept, [R, T K]."""
        replicates, tasks, size = self.rewards.shape
        owner = torch.arange(tasks).repeat_interleave(size).expand(replicates, -1)
        valid = self.rewards.reshape(replicates, -1).isfinite()
        ones = torch.ones_like(valid, dtype=torch.float64)
        return Batch(owner, self.codes.reshape(replicates, tasks * size, -1), 0 * ones, ones, valid)


class ReplicateAdam:
    """Adam (Kingma & Ba 2015) for parameters whose first dimension are replicates, each with its own count of
    steps: those that do not learn in a step stay as they are, moments too.

    Args:
        parameters: [R, ...] each.
        lr: the step size.
        clip: the largest norm of a replicate's gradient over all parameters; None: any.
    """

    def __init__(self, parameters: Sequence[torch.nn.Parameter], lr: float, clip: float | None) -> None:
        self.parameters, self.lr, self.clip = list(parameters), lr, clip
        self.steps = torch.zeros(len(self.parameters), len(self.parameters[0]))
        self.first = [torch.zeros_like(p) for p in self.parameters]
        self.second = [torch.zeros_like(p) for p in self.parameters]
        self._share()

    def _share(self) -> None:
        """Keep what belongs to one replicate in each tensor, [parameters][R] each, as views."""
        with torch.no_grad():
            self.rows = [
                [one.unbind(0) for one in part]
                for part in (self.parameters, self.first, self.second, list(self.steps))
            ]

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], learns: Tensor) -> None:
        """One step of the replicates that learn, bool [R]."""
        chosen = learns.nonzero().flatten().tolist()
        if not chosen:
            return
        norms = torch.stack([torch.linalg.vector_norm(g.flatten(1), dim=1) for g in gradients])
        norm = torch.linalg.vector_norm(norms, dim=0)
        if self.clip is not None and bool((norm > self.clip).any()):
            shrink = (self.clip / norm).clamp_max(1.0)
            gradients = [g * shrink.view(-1, *[1] * (g.dim() - 1)) for g in gradients]
        rows = [*self.rows[:1], [g.unbind(0) for g in gradients], *self.rows[1:]]
        parameters, slopes, first, second, steps = ([one[r] for one in part for r in chosen] for part in rows)
        adam(
            parameters,
            slopes,
            first,
            second,
            [],
            steps,
            fused=True,
            amsgrad=False,
            beta1=BETAS[0],
            beta2=BETAS[1],
            lr=self.lr,
            weight_decay=0.0,
            eps=ADAM_EPSILON,
            maximize=False,
        )

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "first": self.first, "second": self.second}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps, self.first, self.second = state["steps"], state["first"], state["second"]
        self._share()


class Learner:
    """Updates R controllers by the rewards of their designs.

    Args:
        controller: what learns.
        tasks: T.
        settings: see `LearningSettings`.

    Raises:
        UserError: a value out of range; an embedding alone to be trained where there is none.
    """

    def __init__(self, controller: Controller, tasks: int, settings: LearningSettings) -> None:
        require("at least 0", "method", lr=settings.lr, entropy=settings.entropy)
        require("positive", "method", clip=settings.clip, ppo_clip=settings.ppo_clip)
        require("at least 1", "method", ppo_passes=settings.ppo_passes, ppo_bank=settings.ppo_bank)
        require("at least 1", "method", queue=settings.queue)
        if settings.train == "embedding" and controller.settings.task_size == 0:
            raise UserError("method.train=embedding: the controller has no task embedding (valid: all)")
        self.controller, self.settings = controller, settings
        replicates, length = controller.replicates, len(controller.counts)
        self.advantage = RunningAdvantage(
            replicates, tasks, settings.norm, settings.decay, settings.wait, settings.max_advantage
        )
        self.best = BestDesigns(replicates, tasks, settings.queue, length)
        self.bank: list[Batch] = []
        only = settings.train == "embedding"
        self.parameters = [
            p for name, p in controller.named_parameters() if p.numel() and (name == TASK_WEIGHTS or not only)
        ]
        self.adam = ReplicateAdam(self.parameters, settings.lr, settings.clip)
        # of each task the smallest and largest reward so far, and how many; what was said of it
        self.range = torch.tensor([math.inf, -math.inf], dtype=torch.float64).repeat(tasks, 1)
        self.seen = torch.zeros(tasks, dtype=torch.int64)
        self.said = torch.zeros(tasks, dtype=torch.bool)

    def update(self, tasks: Tensor, codes: Tensor, log_p: Tensor, rewards: Tensor) -> list[int]:
        """Learn from a batch of trials.

        Shapes: tasks int64 [R, B], codes int64 [R, B, L], log_p and rewards [R, B]; a reward that is not
        finite is left out.

        Returns:
            the tasks of which it is now known, for the first time, that their rewards are constant.
        """
        advantages = self.advantage.update(tasks, rewards)
        valid = rewards.isfinite()
        batch = Batch(tasks, codes, log_p, advantages, valid)
        if self.settings.algorithm == "pqt":
            self.best.add(tasks, codes, rewards)
            queued = self.best.batch()
            # as long as a task's rewards are all alike there is nothing better to imitate
            varied = self.advantage.variance > 0
            kept = queued.valid & varied.gather(1, queued.tasks)
            self._step(queued._replace(valid=kept), kept.any(1))
        elif self.settings.algorithm == "ppo":
            self.bank = [*self.bank, batch][-self.settings.ppo_bank :]
            bank = Batch.joined(self.bank)
            for _ in range(self.settings.ppo_passes):
                self._step(bank, (bank.weights != 0).any(1))
        else:
            self._step(batch, (advantages != 0).any(1))
        return self._constant(tasks, rewards)

    def loss(self, batch: Batch) -> Tensor:
        """Of each replicate, [R]."""
        log_p, entropy = self.controller.log_prob(batch.tasks, batch.codes)
        weights = batch.weights.to(log_p.dtype)
        now = batch._replace(weights=weights, log_p=batch.log_p.to(log_p.dtype))
        if self.settings.algorithm == "pqt":
            return pqt_loss(log_p, entropy, now, self.settings.entropy)
        if self.settings.algorithm == "ppo":
            return ppo_loss(log_p, entropy, now, self.settings.entropy, self.settings.ppo_clip)
        return reinforce_loss(log_p, entropy, now, self.settings.entropy)

    def _step(self, batch: Batch, learns: Tensor) -> None:
        if bool(learns.any()):
            # replicates share no weight, so that the sum's gradient is each one's own
            gradients = torch.autograd.grad(self.loss(batch).sum(), self.parameters)
            self.adam.step(gradients, learns)

    def _constant(self, tasks: Tensor, rewards: Tensor) -> list[int]:
        task, reward = tasks.flatten(), rewards.flatten().to(torch.float64)
        task, reward = task[reward.isfinite()], reward[reward.isfinite()]
        self.range[:, 0].scatter_reduce_(0, task, reward, "amin")
        self.range[:, 1].scatter_reduce_(0, task, reward, "amax")
        self.seen += torch.bincount(task, minlength=len(self.seen))
        constant = (self.range[:, 0] == self.range[:, 1]) & (self.seen >= CONSTANT_AFTER) & ~self.said
        self.said |= constant
        return [int(k) for k in constant.nonzero().flatten()]

    def state_dict(self) -> dict[str, Any]:
        """All but the controller's weights."""
        return {
            "advantage": self.advantage.state_dict(),
            "best": {"rewards": self.best.rewards, "codes": self.best.codes},
            "bank": [list(batch) for batch in self.bank],
            "adam": self.adam.state_dict(),
            "range": self.range,
            "seen": self.seen,
            "said": self.said,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.advantage.load_state_dict(state["advantage"])
        self.best.rewards, self.best.codes = state["best"]["rewards"], state["best"]["codes"]
        self.bank = [Batch(*parts) for parts in state["bank"]]
        self.adam.load_state_dict(state["adam"])
        self.range, self.seen, self.said = state["range"], state["seen"], state["said"]
