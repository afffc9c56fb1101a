from common.base.module import PaperModule, Progress


class Recorder(PaperModule):
    def progress(self) -> Progress:
        return Progress(0, 1, "steps", "")

    def results(self) -> dict[str, object]:
        return {}


def test_all_series_of_the_history_keep_one_length() -> None:
    module = Recorder()
    module.record(1, loss=0.5)
    module.record(2, loss=0.4, test=3.0)
    module.record(3, loss=0.3)
    assert module.history == {
        "loss": [0.5, 0.4, 0.3],
        "step": [1.0, 2.0, 3.0],
        "test": [None, 3.0, None],
    }
