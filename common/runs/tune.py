"""`tune.py`: a short front of `paper=maxacq dataset=runs`, a search over the settings of any run."""

import shlex
import sys
from itertools import pairwise

from omegaconf import DictConfig

from common.base.command import run_or_help
from common.base.errors import UserError
from common.metrics.direction import direction
from common.runs.catalogue import names
from common.runs.evidence import key_of
from common.runs.objective import check_metric
from common.runs.plugins import check_plugins
from common.runs.refusal import check_words, refuse_near
from common.runs.words import as_text, text_of
from common.search.settings import Setting, is_setting, refuse_other_forms, settings, words_at
from common.tables.tables import unknown

HELP = """Search the settings of any run: which words make a metric of it best.

  python tune.py paper=yogi dataset=digits dataset.validation=0.2 'method.lr=log(1e-4,1)' evaluations=12
  python tune.py paper=yogi dataset=digits dataset.validation=0.2 model=lenet_300_100 \\
    'method=choice(optimizer/adam,optimizer/yogi)' 'method.lr=log(1e-4,1e-1)' \\
    'method.eps=log(1e-8,1e-1) if method=optimizer/adam' 'dataset.batch_size=logint(16,256)' \\
    metric=validation_accuracy evaluations=20 batch=2 rungs=[0.11,0.33]

A word with one of these values is searched; all others are those of the run, as run.py takes them:

  float(low,high)   any number between            log(low,high)      the same, in logarithms
  int(low,high)     whole numbers, ends included  logint(low,high)   the same, in logarithms
  choice(a,b,...)   one of them                   ... if KEY=VALUE   only where the choice KEY is VALUE

Words of the search itself:
  metric=validation_loss    what is looked at: any metric of the run that is not the test set's
  goal=minimize             or maximize, as accuracy, miou, ap, bleu and the like have by themselves
  evaluations=20            trainings in all; initial=... of them spread over the space before it learns
  batch=1                   trainings at a time: in processes of this machine, or by hydra/launcher=ray, ...
  rungs=null                shares of a training, as [0.11,0.33], behind which only the best go on
  warm_start=null           words of earlier runs whose results it begins with, as 'paper=yogi dataset=digits'
  replicates=1              searches, each with a seed of its own, and with `evaluations` trainings of its own
  searcher=practical        random, sobol, tpe, ablr (learns across the runs of warm_start), ei and the others
                            of maxacq; where keys act apart from each other also qff_ts, qff_ucb, ...
  seed, output_dir, data_dir, force, logger as in run.py (of the search)

A training that is free to begin gets the best point given all that have ended, and those under way. One that
fails is a failed trial: it is said, and the search goes on. Nothing is made twice: killed and started again,
the search takes what is there, and a training that was under way goes on from its checkpoint. No test number
is looked at, or shown, before you run the command that it ends with."""
LAUNCHER = "hydra/launcher"
# words of the search, and what they are called in `paper=maxacq dataset=runs`
OWN = {
    "metric": "dataset.metric", "goal": "dataset.goal", "evaluations": "paper.evaluations",
    "initial": "paper.initial", "batch": "paper.batch", "replicates": "paper.repeats", "searcher": "method",
    LAUNCHER: "dataset.launcher", "rungs": "dataset.rungs", "warm_start": "dataset.warm_start",
}  # fmt: skip
# words that run.py takes for the search
ABOUT = ("seed", "output_dir", "data_dir", "force", "logger", "record", "checkpoint_every")
DEFAULTS = {"metric": "validation_loss", "evaluations": "20", "replicates": "1", "batch": "1",
            "searcher": "practical"}  # fmt: skip
GOALS = ("minimize", "maximize")
# config groups of methods that search
SEARCHERS = ("search", "acquisition")
# the surrogate that searchers of additive functions take: a part for each key, of standardised values
ADDITIVE = ("model=gp_se", "model.groups=one_dim", "model.fit=fixed", "model.noise=0.1")
TAKE_ADDITIVE = (
    "search/qff_ts",
    "search/qff_ucb",
    "search/rff_ts",
    "search/exact_gp_ts",
    "search/exact_gp_ucb",
)


def main() -> int:
    """Run the command line; the exit code is 0, or 1 with one line on stderr."""
    return run_or_help(HELP, _tune, needs_words=True)


def _tune(words: list[str]) -> int:
    from common.runs.cli import guarded
    from common.runs.cli import main as launch

    def hand_over() -> None:
        sys.argv[1:] = search_words(words)

    return guarded(hand_over) or launch()


def search_words(words: list[str]) -> list[str]:
    """The words of `run.py` for a search.

    Raises:
        UserError: an option, no word to search, a word that does not fit a run, or a metric of the test set.
    """
    varied, own, about, of_run = _divided(words)
    if not varied:
        raise UserError(
            "nothing to search; valid: at least one word such as 'method.lr=log(1e-4,1)' (see tune.py --help)"
        )
    found = settings(varied)
    check_metric(own["metric"], "metric")
    _check_own(own)
    own.setdefault("goal", "maximize" if direction(own["metric"]) == "higher" else "minimize")
    own.setdefault("initial", _initial(own["evaluations"], len(found)))
    _check_runs(found, of_run, own["metric"])
    parameters = ",".join(as_text(word) for word in varied)
    return [
        "paper=maxacq",
        "dataset=runs",
        f"dataset.words={as_text(shlex.join(of_run))}",
        f"dataset.parameters=[{parameters}]",
        *(f"{OWN[name]}={_in_quotes(value)}" for name, value in own.items()),
        *(ADDITIVE if own["searcher"] in TAKE_ADDITIVE else ()),
        *about,
    ]


def _in_quotes(value: str) -> str:
    """A value that is itself made of words, as that of warm_start, in quotes; others as they are."""
    return as_text(text_of(value) or value) if "=" in value else value


def _divided(words: list[str]) -> tuple[list[str], dict[str, str], list[str], list[str]]:
    """Words that are searched, the search's own by name, those that it takes as they are, and the run's."""
    varied: list[str] = []
    own = dict(DEFAULTS)
    about: list[str] = []
    of_run: list[str] = []
    for word in words:
        key, equals, value = word.partition("=")
        if word.startswith("-") or not equals:
            raise UserError(f"{word}: valid: words as key=value (see tune.py --help)")
        if key in OWN:
            own[key] = value
        elif is_setting(word):
            varied.append(word)
        elif key_of(word).split(".")[0] in ABOUT:
            about.append(word)
        else:
            refuse_other_forms(word)
            of_run.append(word)
    refuse_near(of_run, [*OWN, *ABOUT], strange=False)
    check_plugins([f"{LAUNCHER}={own[LAUNCHER]}"] if LAUNCHER in own else [])
    own["searcher"] = _full_name(own["searcher"])
    return varied, own, about, of_run


def _full_name(searcher: str) -> str:
    """A searcher by its config group and name, of which the name alone will do."""
    known = [name for name in names("method") if name.split("/")[0] in SEARCHERS]
    if searcher in known:
        return searcher
    full = [name for name in known if name.split("/")[1] == searcher]
    if not full:
        raise UserError(unknown("searcher", searcher, [name.split("/")[1] for name in known]))
    return full[0]


def _check_own(own: dict[str, str]) -> None:
    """Refuse values of the search's own words, by the names that they have here.

    Raises:
        UserError: the first wrong one.
    """
    for name in ("evaluations", "batch", "replicates", "initial"):
        if name in own and not (own[name].isdecimal() and int(own[name]) >= 1):
            raise UserError(f"{name}={own[name]}; valid: a whole number, at least 1")
    if own.get("goal", GOALS[0]) not in GOALS:
        raise UserError(unknown("goal", own["goal"], list(GOALS)))
    if (given := own.get("rungs", "null")) != "null" and not _ascends(given):
        raise UserError(f"rungs={given}; valid: ascending shares between 0 and 1, as [0.11,0.33], or null")


def _ascends(rungs: str) -> bool:
    """Whether a list of rungs ascends between 0 and 1."""
    try:
        shares = [float(share) for share in rungs.removeprefix("[").removesuffix("]").split(",")]
    except ValueError:
        return False
    bounds = [0.0, *shares, 1.0]
    return rungs[:1] == "[" and rungs[-1:] == "]" and all(low < high for low, high in pairwise(bounds))


def _initial(evaluations: str, dim: int) -> str:
    """How many points come before anything is learnt: twice d + 1, but no more than a third of all."""
    return str(max(1, min(2 * (dim + 1), int(evaluations) // 3)))


def _check_runs(found: list[Setting], of_run: list[str], metric: str) -> None:
    """Compose a run for each choice before any is made, so that a wrong word costs no training.

    Raises:
        UserError: a key or a choice does not exist.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from common.runs.batch import Batch
    from common.runs.cli import one_line

    jobs = []
    for one in [None, *found]:
        for unit in (one.units() or [0.5]) if one is not None and one.form == "choice" else [0.5]:
            job = [*of_run, *words_at(found, {} if one is None else {one.key: unit})]
            if job not in jobs:
                jobs.append(job)
    batch = Batch(["logger=none"], jobs)
    for job in batch.jobs:
        check_words(job)
        try:
            config = batch.compose(job)
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(one_line(error, job)) from error
        _check_metric_exists(config, metric)


def _check_metric_exists(config: DictConfig, metric: str) -> None:
    data = config.dataset
    # files of the user's own may come with a part for validation; a table has none
    may_have = "path" in data and data.kind not in ("tabular_classification", "regression")
    if metric.startswith("validation_") and not may_have and data.get("validation") == 0:
        raise UserError(
            f"metric={metric}: the run keeps no validation split (valid: dataset.validation=0.2, a share of "
            "the training examples, or a metric that the run has without)"
        )
