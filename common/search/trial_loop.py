"""A search whose evaluations take long: a worker that is free gets the next proposal at once."""

import copy
import time
from dataclasses import replace

import torch
from torch import Tensor

from common.base.crew import Crew, Measured
from common.base.errors import UserError
from common.numerics.sampling import ReplicateSampler
from common.search.halving import promoted, told
from common.search.searcher import Observations, Searcher, Task, check_inside
from common.search.trials import Trial, Trials

# proposals in a row of points that were proposed before, after which one of them is taken
TRIES = 20
# what is random about a proposal follows from the seed of its replicate and its number
NUMBERS = 1_000_033
# after so many, and none that came to anything, a search ends
HOPELESS = 10


class TrialLoop:
    """Hands trials to a crew: those that a kill left under way first, then promotions, then new ones.

    Each replicate is searched by a searcher of its own, which is told of what has ended, and of the points
    that are under way; of them all the one with the fewest trials is next. So what is proposed depends on the
    order in which trials end, and on nothing else: a search that goes on is the one that was not killed.

    Args:
        task: of all replicates.
        searcher: started copies of it are used.
        trials: so far.
        crew: who evaluates.
        initial: the first points of each replicate, [R, n, d].

    Attributes:
        propose_seconds: spent on proposals by this process.
        repeated: proposals of a point that was proposed before.
    """

    def __init__(self, task: Task, searcher: Searcher, trials: Trials, crew: Crew, initial: Tensor) -> None:
        self.objective, self.total, self.trials, self.crew = task.objective, task.evaluations, trials, crew
        self.rungs, self.initial, self.device = task.objective.rungs, initial, task.device
        self.size = self.objective.space.size()
        self.searchers = []
        for seed in task.seeds:
            one = copy.deepcopy(searcher)
            one.start(replace(task, seeds=[seed], random=self._random(seed, 0)))
            self.searchers.append(one)
        self.busy: set[int] = set()
        self.propose_seconds, self.repeated, self._said = 0.0, 0, False

    @property
    def done(self) -> bool:
        """Whether nothing is left to be made."""
        return not self.busy and self._next() is None

    def turn(self, seconds: float) -> None:
        """Give free workers something to do, then wait until a trial ends, or for so long.

        Raises:
            UserError: nothing comes to anything.
        """
        while len(self.busy) < self.crew.size:
            found = self._next()
            if found is None:
                break
            which, share = found
            trial = self._proposed(which) if isinstance(which, int) else which
            self.trials.start(trial, share)
            self.busy.add(trial.number)
            self.crew.start(trial.number, trial.replicate, self._point(trial), share)
        if self.busy:
            for measured in self.crew.wait(seconds):
                self.busy.remove(measured.number)
                self.trials.measure(measured)
                self._tell(measured)
        self._check_hope()

    def _next(self) -> tuple[Trial | int, float] | None:
        """What a free worker is to do: a trial, or a new one of a replicate, up to a share of its length."""
        for trial in self.trials.all:
            if trial.number not in self.busy and (trial.running is not None or not trial.values):
                return trial, trial.running or self.rungs[0]
        owns = [self.trials.of(r) for r in range(len(self.searchers))]
        last = [len(own) >= self.total or self._used_up(own) for own in owns]
        for own in owns:
            if (found := promoted(own, self.rungs, last=False)) is not None:
                return found
        left = [r for r in range(len(owns)) if not last[r]]
        if left:
            return min(left, key=lambda r: len(owns[r])), self.rungs[0]
        for own in owns:
            waiting = any(trial.running is not None for trial in own)
            if not waiting and (found := promoted(own, self.rungs, last=True)) is not None:
                return found
        return None

    def _used_up(self, own: list[Trial]) -> bool:
        """Whether a replicate has tried all that there is."""
        return self.size is not None and len({trial.point for trial in own}) >= self.size

    def _proposed(self, r: int) -> Trial:
        own = self.trials.of(r)
        space, earlier = self.objective.space, [trial.point for trial in own]
        if len(own) < self.initial.shape[1]:
            point = space.snapped(self.initial[r, len(own)])
            if tuple(point.tolist()) not in earlier:
                return self.trials.propose(r, point.tolist())
        began = time.perf_counter()
        seen = self.seen(r)
        searcher = self.searchers[r]
        for attempt in range(TRIES):
            random = self._random(searcher.task.seeds[0], 1 + TRIES * len(own) + attempt)
            searcher.task = replace(searcher.task, random=random)
            x = searcher.propose(seen if searcher.PENDING else seen.believed(), 1)
            check_inside(searcher, x)
            point = space.snapped(x[0, 0])
            if tuple(point.tolist()) not in earlier:
                break
        else:
            self.repeated += 1
        self.propose_seconds += time.perf_counter() - began
        return self.trials.propose(r, point.tolist())

    def _random(self, seed: int, number: int) -> ReplicateSampler:
        return ReplicateSampler(seed * NUMBERS + number, 1, None, self.device, torch.float64)

    def seen(self, r: int) -> Observations:
        """What the searcher of a replicate is told, in the order in which trials ended.

        A surrogate that is fixed models values of mean 0 and variance 1, so it is told standardised ones.
        Where trials pause at rungs, all values are those of one rung; the trials without one there are
        pending, as are those under way.
        """
        own, dim = self.trials.of(r), self.objective.space.dim
        share = told(own, self.rungs, dim + 2)
        rows = [
            trial
            for trial, at in self.trials.ended
            if trial.replicate == r and (at == share or (trial.failed and at == trial.share))
        ]
        ended = {trial.number for trial in rows}
        pending = [trial for trial in own if trial.number not in ended]
        y = [trial.values[trial.share if trial.failed else share] for trial in rows]
        x, under_way = (self._points(some, dim) for some in (rows, pending))
        values = torch.tensor(y, dtype=torch.float64, device=self.device)
        if self.searchers[r].task.surrogate.fit == "fixed":
            values = standardised(values)
        return Observations(x, values[None], under_way if pending else None)

    def _points(self, trials: list[Trial], dim: int) -> Tensor:
        points = [trial.point for trial in trials]
        return torch.tensor(points, dtype=torch.float64, device=self.device).reshape(1, len(points), dim)

    def _point(self, trial: Trial) -> Tensor:
        return torch.tensor(trial.point, dtype=torch.float64, device=self.device)

    def _tell(self, measured: Measured) -> None:
        trial = self.trials.all[measured.number]
        if trial.failed and not self._said:
            what = measured.said or "a value that is not finite"
            print(
                f"[{self.objective.NAME}] trial {trial.number + 1} failed ({what}): it stays in the record, "
                "the surrogate goes without it",
                flush=True,
            )
            self._said = True

    def _check_hope(self) -> None:
        ended = [trial for trial in self.trials.all if trial.values]
        if any(not trial.failed for trial in ended) or not ended:
            return
        if len(ended) >= HOPELESS or self.done:
            said = ended[0].said or "a value that is not finite"
            self.crew.close()
            self.trials.put_aside()
            raise UserError(
                f"dataset={self.objective.NAME}: all {len(ended)} trials failed, the first with: {said} "
                "(valid: mend that; the same command begins anew)"
            )


def standardised(y: Tensor) -> Tensor:
    """Values y [n] with mean 0 and standard deviation 1 over those that are finite; alike ones are all 0."""
    known = y[y.isfinite()]
    if not len(known):
        return y
    scale = known.std() if len(known) > 1 else known.new_zeros(())
    return (y - known.mean()) / torch.where(scale > 0, scale, torch.ones_like(scale))
