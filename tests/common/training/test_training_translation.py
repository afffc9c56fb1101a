"""Translation as a task: its loss, measures and BLEU against others; training, and a run that goes on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from data_toys import make
from torch import Tensor, nn

from common.base.errors import UserError
from common.base.sequence import EOS, PAD, parted
from common.metrics import bleu as measures
from common.metrics.bleu import bleu
from common.models.transformer import Transformer
from common.runs.own_model import checked
from common.training.schedules import constant
from common.training.supervised import SupervisedModule
from common.training.translation import Translation, decoded, translations

__all__ = ["make"]
pytest.importorskip("sacrebleu", reason="pip install -e '.[translation]'")
Build = Callable[..., Any]
COLOURS = ["red", "green", "blue", "grey"]
THINGS = ["house", "file", "tree", "dog", "car"]


@pytest.fixture
def data(make: Build, tmp_path: Path) -> Any:
    """All 240 pairs like `two red dogs 3` and `dogs red 3 two`, of words."""
    lines = [
        (f"{n} {c} {t} {m}", f"{t} {c} {m} {n}")
        for n in "123"
        for c in COLOURS
        for t in THINGS
        for m in "abcd"
    ]
    (tmp_path / "pairs.tsv").write_text("".join(f"{one}\t{other}\n" for one, other in lines))
    path = str(tmp_path / "pairs.tsv")
    return make("text_pair", path=path, level="word", vocabulary=30, longest=8, batch_size=60)


def small(data: Any, **keys: Any) -> Transformer:
    """One layer of 32."""
    settings = {"layers": 1, "width": 32, "inner": 32, "heads": 2, "dropout": 0.0, "norm": "pre", "beam": 2}
    settings |= {"attention_bias": False, "label_smoothing": 0.1, "length_penalty": 0.6}
    torch.manual_seed(0)
    return Transformer(shape=data.shape, classes=data.classes, **(settings | keys))


def test_the_loss_is_the_smoothed_cross_entropy_of_the_tokens_that_are_there(data: Any) -> None:
    task = Translation(0.1, 1, 0.0)
    logits = torch.randn(2, 3, 7, dtype=torch.float64)
    targets = torch.tensor([[4, 5, EOS], [6, EOS, PAD]])
    logs = logits.log_softmax(-1)
    rows = [(0, 0, 4), (0, 1, 5), (0, 2, EOS), (1, 0, 6), (1, 1, EOS)]
    expected = -sum(0.9 * logs[b, t, v] + 0.1 * logs[b, t].mean() for b, t, v in rows) / 5
    assert torch.isclose(task.fit_of(nn.Identity(), logits, targets, targets), expected)


def test_measures_of_a_split_are_means_over_all_its_tokens(data: Any) -> None:
    model = small(data).eval()
    task = Translation.of(model, data)
    found = task.evaluate(model, data, "train")
    inputs, targets = data.batch("train", slice(None), augment=False)
    with torch.no_grad():
        logits = model(inputs).flatten(0, 1)
    there = targets.flatten() != PAD
    logits, right = logits[there], targets.flatten()[there]
    assert set(found) == {"train_loss", "train_perplexity", "train_accuracy"}
    assert found["train_loss"] == pytest.approx(float(F.cross_entropy(logits, right, label_smoothing=0.1)))
    assert found["train_perplexity"] == pytest.approx(float(F.cross_entropy(logits, right).exp()), rel=1e-5)
    assert found["train_accuracy"] == pytest.approx(float((logits.argmax(-1) == right).float().mean()))


def test_bleu_is_sacrebleus_and_agrees_with_torchmetrics() -> None:
    from torchmetrics.text import SacreBLEUScore

    made = ["the red house stands on the hill .", "two dogs (brown) run, and bark"]
    right = ["the red house stands on a hill .", "two brown dogs run, and bark loudly"]
    for tokenisation in ("13a", "none", "char"):
        peer = SacreBLEUScore(tokenize=tokenisation)(made, [[one] for one in right])
        assert bleu(made, right, tokenisation) == pytest.approx(100 * float(peer), rel=1e-5)
    assert bleu(right, right, "13a") == pytest.approx(100)
    assert bleu(["of other words"], ["nothing alike here"], "13a") < 10


def test_without_sacrebleu_a_line_says_so_before_training(data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sacrebleu", None)
    with pytest.raises(UserError, match=r"needs the package sacrebleu: pip install -e '\.\[translation\]'"):
        measures.sacrebleu()
    with pytest.raises(UserError, match="sacrebleu"):
        Translation.of(small(data), data)


def test_a_model_for_pairs_refuses_other_data(make: Build) -> None:
    other = make("digits")
    with pytest.raises(UserError, match=r"has no pairs of texts \(valid: dataset=text_pair"):
        Translation.of(nn.Identity(), other)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"paper\.measure_gradient=true"):
        Translation(0.0, 1, 0.0).full_gradient_norm_sq(nn.Identity(), other)


class ByRote(nn.Module):
    """A network that has learned pairs by heart: it gives the target's next token, with `forward` alone."""

    def __init__(self, sources: Tensor, targets: Tensor, classes: int) -> None:
        super().__init__()
        self.known = {tuple(s.tolist()): t.tolist() for s, t in zip(sources, targets, strict=True)}
        self.weight = nn.Parameter(torch.zeros(()))
        self.classes = classes

    def forward(self, inputs: Tensor) -> Tensor:
        begin = int((inputs[0] == 1).nonzero()[0])
        rows = [self.known[tuple(row[:begin].tolist())] for row in inputs]
        wanted = torch.tensor([[*row, *[PAD] * 60][: inputs.shape[1] - begin] for row in rows])
        return 9.0 * F.one_hot(wanted, self.classes).float() + self.weight


@pytest.mark.parametrize("beam", [1, 2])
def test_translations_come_in_the_order_of_the_split_and_by_forward_alone(data: Any, beam: int) -> None:
    data.setup()
    size = data.size("test")
    everything = torch.arange(size)
    _, targets = data.batch("test", everything, augment=False)
    model = ByRote(data.sources_of("test", everything), targets, data.classes)
    assert translations(model, data, "test", beam, 0.6) == data.references("test")


def module_of(data: Any, seed: int = 0, **keys: Any) -> SupervisedModule:
    model = small(data)
    settings: dict[str, Any] = {
        "data": data, "schedule": constant, "seed": seed, "epochs": 3.0, "test_every": None, "model": model,
        "make_model": lambda: small(data), "method": lambda p: torch.optim.Adam(p, lr=5e-3), "pixels": "mean",
        "measure_gradient": False,
    }  # fmt: skip
    return SupervisedModule(**(settings | keys))


def fit(module: SupervisedModule, root: Path, ckpt: Path | None = None, **options: Any) -> pl.Trainer:
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False, max_epochs=-1,
        enable_checkpointing=False, default_root_dir=str(root), use_distributed_sampler=False, **options,
    )  # fmt: skip
    trainer.fit(module, ckpt_path=None if ckpt is None else str(ckpt), weights_only=ckpt is not None)
    return trainer


@pytest.mark.slow
def test_a_small_transformer_learns_to_turn_words_round(data: Any, tmp_path: Path) -> None:
    pl.seed_everything(0, verbose=False)
    module = module_of(data, epochs=25.0)
    fit(module, tmp_path)
    found = module.results()
    assert found["test_bleu"] > 80 and found["validation_bleu"] > 80
    assert found["test_accuracy"] > 0.9 and found["train_loss"] < module.first_loss
    line = "3 green dog b"
    (tokens,) = decoded(module.network().eval(), data.tokens_of([line]), 2, 0.6)
    assert data.text_of(tokens) == "dog green b 3"


def test_a_moving_average_is_what_is_judged_and_what_a_finished_run_leaves(data: Any, tmp_path: Path) -> None:
    module = module_of(data, epochs=2.0)
    module.average_weights(0.9)
    trainer = fit(module, tmp_path)
    expected = module.results()
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    raw = module.task.evaluate(module.network(), data, "test")
    left = module_of(data)
    left.average_weights(0.9)
    network = left.finished(torch.load(tmp_path / "last.ckpt", weights_only=True))
    found = module.task.evaluate(network, data, "test")
    assert found == {name: expected[name] for name in found} != raw


class Translator(nn.Module):
    """A network of a user's own that gives so many logits for each token of the target."""

    task = "translation"

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(100, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.embedding(parted(inputs)[1])


def test_a_translator_of_the_users_own_is_taken_and_judged_where_its_outputs_fit(data: Any) -> None:
    model = checked(Translator(data.classes), Translator, data, "translation")
    found = Translation.of(model, data).evaluate(model, data, "validation")  # type: ignore[arg-type]
    assert 0 <= found["validation_bleu"] <= 100
    with pytest.raises(UserError, match=r"gives \(2, 3, 7\) for 2 packed pairs of 3 and 3 tokens") as error:
        checked(Translator(7), Translator, data, "translation")
    assert "\n" not in str(error.value)
