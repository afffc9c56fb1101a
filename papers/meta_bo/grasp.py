"""Robot planning problems: the same list of actions tried on many problems, a score for each try."""

from pathlib import Path
from typing import ClassVar, Literal

import scipy.io
import torch
from torch import Tensor

from common.base.dataset import check
from common.base.objective import arms as space_of
from common.data.shared.download import DamagedError, md5_of, obtain
from papers.meta_bo.transfer import FAMILY_SEED, MetaObjective

# MetaLearnBO at commit c7f0d1e4
URL = (
    "https://raw.githubusercontent.com/beomjoonkim/MetaLearnBO/"
    "c7f0d1e4a22d3613e8fac4643caa61397c6efcf3/data/ag/1800_rrt.mat"
)
FILE = "metalearnbo/ag/1800_rrt.mat"
MD5 = "55de09f3843cc69faf1acb5828c50300"
SCORES, ACTIONS = "standard_selected_rewards", "standard_selected_thetas"


class ActionScores(MetaObjective):
    """A matrix of scores [problems, arms]: replicate with seed s searches row s (mod problems).

    It learns from all other rows. The best score of a row is its optimum. There is no noise.

    Attributes:
        scores: [problems, arms].
    """

    scores: Tensor

    def move(self, device: torch.device | str) -> None:
        super().move(device)
        self.scores = self.scores.to(self.device)

    def draw(self, seeds: list[int]) -> None:
        self.rows = [seed % len(self.scores) for seed in seeds]
        self.mine = self.scores[self.rows]

    def values(self, x: Tensor) -> Tensor:
        return self.mine.gather(1, x[..., 0].long())

    def optimum(self) -> Tensor:
        return self.mine.max(1).values

    def family(self) -> tuple[Tensor, None]:
        return self.scores, None

    def left_out(self) -> list[int]:
        return self.rows


class MetaGraspAg(ActionScores):
    """Arm and grasp: 1,800 problems x 162 grasps with 58 features, the evaluations of Kim and Kaelbling.

    98.55% of the scores are the failure score -3.352.

    Args:
        kind: must be `objective`.
        source: `real`, or `synthetic`: made-up scores of the same shape, for trials without the file.
        data_dir: holds `metalearnbo/ag/1800_rrt.mat`, which is downloaded where it is missing.
        verify: whether the file's md5 must be the known one.
        portion, missing: see `MetaObjective`.

    Raises:
        UserError: a value out of range.
    """

    NAME: ClassVar = "meta_grasp_ag"
    PROBLEMS: ClassVar = 1800
    ARMS: ClassVar = 162
    FEATURES: ClassVar = 58

    def __init__(
        self,
        *,
        kind: str,
        source: Literal["real", "synthetic"],
        data_dir: str,
        verify: bool,
        portion: float,
        missing: float,
    ) -> None:
        # the features are read by setup
        space = space_of(torch.zeros(self.ARMS, self.FEATURES, dtype=torch.float64))
        super().__init__(kind=kind, space=space, noise=0.0, portion=portion, missing=missing)
        self.source, self.data_dir, self.verify = source, Path(data_dir), verify

    def setup(self, stage: str | None = None) -> None:
        if self.source == "synthetic":
            self.scores = failing_scores(self.PROBLEMS, self.ARMS, failures=0.98, worst=-3.35, best=-0.4)
            self.space = space_of(_features(self.ARMS, self.FEATURES))
            return
        path = self.data_dir / FILE
        advice = "fetch it by hand and put it there, or use dataset.source=synthetic"
        self.scores, features = obtain(path, URL, self._read, advice)
        self.space = space_of(standardised(features))

    def sources(self) -> dict[str, Path]:
        """The file of scores."""
        return {FILE: self.data_dir / FILE}

    def _read(self, path: Path) -> tuple[Tensor, Tensor]:
        if not path.is_file():
            raise FileNotFoundError(path)
        if self.verify and md5_of(path) != MD5:
            raise DamagedError("its md5 is not the known one")
        try:
            content = scipy.io.loadmat(path, variable_names=[SCORES, ACTIONS])
            scores, actions = (torch.from_numpy(content[k]).to(torch.float64) for k in (SCORES, ACTIONS))
        except Exception as error:
            raise DamagedError(f"not the MATLAB file that it should be ({type(error).__name__})") from error
        if scores.shape != (self.PROBLEMS, self.ARMS) or actions.shape != (self.ARMS, self.FEATURES):
            raise DamagedError(f"shapes {tuple(scores.shape)} and {tuple(actions.shape)}")
        if not scores.isfinite().all() or not actions.isfinite().all():
            raise DamagedError("entries that are not finite")
        return scores, actions


class MetaGraspBasePlace(ActionScores):
    """A stand-in for grasp, base pose and placement, whose evaluations are not to be had: made-up scores.

    Of the same shape as the original (1,500 problems, 1,499 arms of 58 + 3 + 3 features) and of the same
    kind: nine of ten tries fail, the others depend on problem and arm through a few factors.

    Args:
        kind: must be `objective`.
        problems, arms: the size, at least 2 each.
        portion, missing: see `MetaObjective`.

    Raises:
        UserError: a value out of range.
    """

    NAME: ClassVar = "meta_grasp_base_place_gpb"
    FEATURES: ClassVar = 58 + 3 + 3

    def __init__(self, *, kind: str, problems: int, arms: int, portion: float, missing: float) -> None:
        check("problems", problems, problems >= 2, "give at least 2")
        check("arms", arms, arms >= 2, "give at least 2")
        space = space_of(_features(arms, self.FEATURES))
        super().__init__(kind=kind, space=space, noise=0.0, portion=portion, missing=missing)
        self.problems, self.arms = problems, arms

    def setup(self, stage: str | None = None) -> None:
        self.scores = failing_scores(self.problems, self.arms, failures=0.9, worst=-6.0, best=-1.2)


def failing_scores(problems: int, arms: int, failures: float, worst: float, best: float) -> Tensor:
    """Seeded scores [problems, arms] of which a fraction `failures` is exactly `worst`.

    The latent score of arm a on problem p is b_a + u_p . v_a with 5 factors, plus a little of its own.
    Where it is among the largest 1 - failures of all, the score rises with its rank from halfway between
    worst and best up to `best`.
    """
    generator = torch.Generator().manual_seed(FAMILY_SEED)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    latent = normal(arms) + normal(problems, 5) @ normal(5, arms) / 5**0.5 + 0.3 * normal(problems, arms)
    rank = latent.flatten().argsort().argsort().reshape(latent.shape).to(torch.float64)
    rank = rank / (rank.numel() - 1)
    high = (rank - failures) / (1 - failures)
    return torch.where(high > 0, best - (1 - high) * (best - worst) / 2, torch.full_like(rank, worst))


def _features(count: int, numbers: int) -> Tensor:
    generator = torch.Generator().manual_seed(FAMILY_SEED + 1)
    return torch.randn(count, numbers, generator=generator, dtype=torch.float64)


def standardised(features: Tensor) -> Tensor:
    """Each column with mean 0 and standard deviation 1; one that is constant is 0."""
    centred = features - features.mean(0)
    scale = centred.std(0, correction=0)
    return torch.where(scale > 1e-12, centred / scale.clamp_min(1e-12), torch.zeros_like(centred))
