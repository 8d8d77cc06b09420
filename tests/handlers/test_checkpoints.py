"""What lies in the folder of a run after every way a run can end."""

import contextlib
import errno
import io
import json
import math
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine, Events

from volseg import files
from volseg.checks import InputError
from volseg.files import sha256_of
from volseg.handlers import CheckpointHandler, load_threshold
from volseg.handlers import checkpoints as module
from volseg.metrics import DiceMetric


class Sweep:
    """Has the threshold of the validation that ran last."""

    best_threshold = 0.5


class Run:
    """A training of one weight, whose value after epoch n is n; the scores of its validations are given."""

    def __init__(self, folder, scores, *, thresholds=None, epochs=None, network=None, **options):
        self.network = network or torch.nn.Linear(1, 1, bias=False)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1.0)
        self.epochs = epochs or len(scores)
        self.scheduler = torch.optim.lr_scheduler.PolynomialLR(self.optimizer, total_iters=self.epochs)
        self.scores, self.sweep, self.trained = scores, Sweep(), []
        self.thresholds = thresholds or [0.5] * len(scores)
        self.evaluator = Engine(lambda engine, batch: None)
        self.trainer = Engine(lambda engine, batch: None)
        self.trainer.add_event_handler(Events.EPOCH_COMPLETED, self.train)
        state = {"optimizer": self.optimizer, "lr_scheduler": self.scheduler}
        options = {"evaluator": self.evaluator, "key_metric": "dice", "sweep": self.sweep, **options}
        self.handler = CheckpointHandler(folder, self.network, state, **options)
        self.handler.attach(self.trainer)

    def train(self, engine):
        epoch = engine.state.epoch
        self.trained.append(epoch)
        self.optimizer.zero_grad()
        sum(parameter.sum() for parameter in self.network.parameters()).backward()
        self.optimizer.step()
        self.scheduler.step()
        with torch.no_grad():
            next(self.network.parameters()).fill_(epoch)
        if self.scores[epoch - 1] is not None:
            self.evaluator.state.epoch = epoch
            self.evaluator.state.metrics["dice"] = self.scores[epoch - 1]
            self.sweep.best_threshold = self.thresholds[epoch - 1]

    def __call__(self):
        self.trainer.run([0], max_epochs=self.epochs)
        return self


def best_epoch(folder):
    return torch.load(folder / "model.pt", weights_only=True)["weight"].item()


def assert_same_run(folder, other):
    """Compare best weights and threshold byte for byte, and the state tensor for tensor."""
    found, expected = contents(folder), contents(other)
    states = [torch.load(io.BytesIO(files.pop("last.pt")), weights_only=True) for files in (found, expected)]
    assert found == expected
    torch.testing.assert_close(*states, rtol=0, atol=0)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Killed(BaseException):
    """What no handler catches, like the signal."""


def killed_at_write(number, monkeypatch):
    """Let the process end at its `number`-th file, before anything of it is under its final name."""
    written = []
    publish = files._publish

    def end(temporary, path, overwrite):
        written.append(path.name)
        if len(written) == number:
            raise Killed
        publish(temporary, path, overwrite)

    monkeypatch.setattr(files, "_publish", end)
    return written


def test_the_best_epoch_is_kept_by_its_metric(tmp_path):
    Run(tmp_path, [0.3, 0.7, 0.5])()
    assert best_epoch(tmp_path) == 2


def test_of_equal_epochs_the_first_is_kept(tmp_path):
    Run(tmp_path, [0.3, 0.3])()
    assert best_epoch(tmp_path) == 1


@pytest.mark.parametrize("value", [math.nan, math.inf, torch.tensor(math.nan)], ids=str)
def test_a_score_that_is_no_number_never_wins(tmp_path, value):
    Run(tmp_path, [0.3, value])()
    assert best_epoch(tmp_path) == 1


def test_without_any_score_there_are_no_best_weights(tmp_path):
    Run(tmp_path, [math.nan, None])()
    assert set(contents(tmp_path)) == {"last.pt"}


def test_an_epoch_without_validation_does_not_take_the_score_of_an_earlier_one(tmp_path):
    Run(tmp_path, [0.3, None, None])()
    assert best_epoch(tmp_path) == 1


def test_the_best_weights_are_a_plain_state_dict(tmp_path):
    run = Run(tmp_path, [0.3])()
    saved = torch.load(tmp_path / "model.pt", weights_only=True)
    assert type(saved) is dict
    assert saved.keys() == run.network.state_dict().keys()


def test_a_distributed_wrapper_is_looked_through(tmp_path):
    wrapper = torch.nn.Module()
    wrapper.module = torch.nn.Linear(1, 1, bias=False)
    Run(tmp_path, [0.3], network=wrapper)()
    assert set(torch.load(tmp_path / "model.pt", weights_only=True)) == {"weight"}


def test_the_same_run_leaves_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        Run(tmp_path / name, [0.3, 0.7])()
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_resumed_run_goes_on_with_the_next_epoch_and_the_state_of_the_optimiser(tmp_path):
    whole = Run(tmp_path / "whole", [0.3, 0.7, 0.5, 0.2])()
    first = Run(tmp_path / "parts", [0.3, 0.7, 0.5, 0.2])
    first.trainer.run([0], max_epochs=2)
    second = Run(tmp_path / "parts", [0.3, 0.7, 0.5, 0.2])()
    assert second.trained == [3, 4]
    assert second.trainer.state.iteration == 4
    assert second.optimizer.state_dict() == whole.optimizer.state_dict()
    assert second.scheduler.state_dict() == whole.scheduler.state_dict()
    assert_same_run(tmp_path / "parts", tmp_path / "whole")


def test_a_resumed_run_remembers_the_best_score(tmp_path):
    Run(tmp_path, [0.3, 0.7, 0.5, 0.6]).trainer.run([0], max_epochs=2)
    Run(tmp_path, [0.3, 0.7, 0.5, 0.6])()
    assert best_epoch(tmp_path) == 2


def test_a_finished_run_is_refused(tmp_path):
    Run(tmp_path, [0.3, 0.7])()
    before = contents(tmp_path)
    with pytest.raises(
        InputError, match=r"last\.pt: expected fewer than 2 finished epochs, got 2; raise --ep"
    ):
        Run(tmp_path, [0.3, 0.7])()
    assert contents(tmp_path) == before


def test_a_finished_run_trains_on_with_more_epochs_along_their_schedule(tmp_path):
    Run(tmp_path, [0.3, 0.7])()
    longer = Run(tmp_path, [0.3, 0.7, 0.8, 0.9])
    longer.trainer.run([0], max_epochs=3)
    assert longer.trained == [3]
    assert longer.scheduler.total_iters == 4
    assert longer.scheduler.last_epoch == 3


def test_weights_of_another_run_are_not_replaced(tmp_path):
    torch.save({"weight": torch.zeros(1, 1)}, tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"model\.pt: expected no weights .*--overwrite true"):
        Run(tmp_path, [0.3])()
    assert best_epoch(tmp_path) == 0


def test_the_state_of_another_network_is_refused(tmp_path):
    Run(tmp_path, [0.3, 0.7]).trainer.run([0], max_epochs=1)
    other = Run(tmp_path, [0.3, 0.7], network=torch.nn.Linear(2, 1))
    with pytest.raises(
        InputError, match=r"got another run's; pass another --output_dir, or --overwrite true"
    ):
        other()


def test_the_state_of_another_scheduler_is_refused(tmp_path):
    Run(tmp_path, [0.3, 0.7]).trainer.run([0], max_epochs=1)
    other = Run(tmp_path, [0.3, 0.7])
    other.handler.restored["lr_scheduler"] = torch.optim.lr_scheduler.StepLR(other.optimizer, step_size=3)
    with pytest.raises(InputError, match=r"another run's; .*no StepLR"):
        other()


@pytest.mark.parametrize("broken", [b"", b"no archive", None], ids=["empty", "text", "cut"])
def test_a_state_that_cannot_be_read_is_refused(tmp_path, broken):
    Run(tmp_path, [0.3, 0.7]).trainer.run([0], max_epochs=1)
    last = tmp_path / "last.pt"
    last.write_bytes(last.read_bytes()[:-100] if broken is None else broken)
    with pytest.raises(
        InputError, match=r"last\.pt: expected the state of a training run, got .+ --overwrite"
    ):
        Run(tmp_path, [0.3, 0.7])()


def test_lost_best_weights_of_an_earlier_epoch_are_refused(tmp_path):
    Run(tmp_path, [0.7, 0.3, 0.2]).trainer.run([0], max_epochs=2)
    (tmp_path / "model.pt").unlink()
    with pytest.raises(
        InputError, match=r"model\.pt: expected the best weights of this run, those of epoch 1"
    ):
        Run(tmp_path, [0.7, 0.3, 0.2])()


def test_overwrite_starts_anew(tmp_path):
    Run(tmp_path, [0.9, 0.9])()
    anew = Run(tmp_path, [0.3, 0.2], overwrite=True)()
    assert anew.trained == [1, 2]
    assert json.loads((tmp_path / "threshold.json").read_text())["dice"] == 0.3


def test_overwrite_leaves_no_best_weights_of_the_run_replaced(tmp_path):
    Run(tmp_path, [0.9])()
    Run(tmp_path, [math.nan], overwrite=True)()
    assert set(contents(tmp_path)) == {"last.pt"}


@pytest.mark.parametrize("failing", [1, 2], ids=["last.pt", "model.pt"])
def test_a_full_disk_leaves_the_former_files_whole(tmp_path, monkeypatch, failing):
    scores = [0.3, 0.7]
    Run(tmp_path, scores).trainer.run([0], max_epochs=1)
    before = contents(tmp_path)
    save, calls = torch.save, []

    def full(content, file):
        calls.append(file)
        if len(calls) == failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(content, file)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        Run(tmp_path, scores)()
    after = contents(tmp_path)
    assert after["model.pt"] == before["model.pt"]
    assert after.keys() == before.keys()
    monkeypatch.undo()
    assert load_threshold(tmp_path / "model.pt") == 0.5
    if failing == 1:
        assert after == before
        Run(tmp_path, scores)()
    else:
        with pytest.raises(InputError, match="finished epochs"):
            Run(tmp_path, scores)()
    assert best_epoch(tmp_path) == 2


def test_a_disk_that_fills_up_while_bytes_are_written_is_named_with_the_file(tmp_path, monkeypatch):
    write = Path.write_bytes

    def full(path, content):
        if path.suffix == ".probe":  # there was room when the run began
            return write(path, content)
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(module.Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*last\.pt'"):
        Run(tmp_path, [0.3])()
    assert contents(tmp_path) == {}


SCORES = {"rising": [0.3, 0.7, 0.8], "falling": [0.8, 0.3, 0.7]}
EVERY_WRITE = [("rising", number) for number in range(1, 10)] + [
    ("falling", number) for number in range(1, 6)
]


@pytest.mark.parametrize(("course", "number"), EVERY_WRITE, ids=str)
def test_a_run_killed_at_any_write_ends_as_the_undisturbed_one(tmp_path, monkeypatch, course, number):
    scores, thresholds = SCORES[course], [0.2, 0.4, 0.6]
    Run(tmp_path / "whole", scores, thresholds=thresholds)()
    killed_at_write(number, monkeypatch)
    with pytest.raises(Killed):
        Run(tmp_path / "killed", scores, thresholds=thresholds)()
    monkeypatch.undo()
    with contextlib.suppress(InputError):  # once the last epoch's state is written nothing is left to train
        Run(tmp_path / "killed", scores, thresholds=thresholds)()
    assert_same_run(tmp_path / "killed", tmp_path / "whole")


def test_the_threshold_is_that_of_the_best_epoch(tmp_path):
    Run(tmp_path, [0.3, 0.7, 0.5], thresholds=[0.2, 0.4, 0.6])()
    assert load_threshold(tmp_path / "model.pt") == 0.4


@pytest.mark.parametrize("sweep", [None, object(), DiceMetric()], ids=["none", "argmax", "masks"])
def test_without_a_sweep_no_threshold_is_stored_and_the_default_is_taken(tmp_path, sweep):
    Run(tmp_path, [0.3, 0.2], thresholds=[0.2, 0.2], sweep=sweep)()
    assert json.loads((tmp_path / "threshold.json").read_text())["threshold"] is None
    assert load_threshold(tmp_path / "model.pt") == 0.5
    assert load_threshold(tmp_path / "model.pt", default=0.25) == 0.25


def test_a_run_without_a_threshold_goes_on_where_it_was_killed(tmp_path, monkeypatch):
    scores = [0.3, 0.7, 0.8]
    Run(tmp_path / "whole", scores, sweep=None)()
    killed_at_write(6, monkeypatch)
    with pytest.raises(Killed):
        Run(tmp_path / "killed", scores, sweep=None)()
    monkeypatch.undo()
    Run(tmp_path / "killed", scores, sweep=None)()
    assert_same_run(tmp_path / "killed", tmp_path / "whole")


def test_the_threshold_of_other_weights_is_refused_even_where_there_is_none(tmp_path):
    (tmp_path / "model.pt").write_bytes(b"weights")
    (tmp_path / "threshold.json").write_text('{"weights_sha256": "", "threshold": null}')
    with pytest.raises(InputError, match=r"threshold of model\.pt, got one of other weights"):
        load_threshold(tmp_path / "model.pt")


def test_the_threshold_is_bound_to_the_bytes_of_the_weights(tmp_path):
    Run(tmp_path, [0.3])()
    record = json.loads((tmp_path / "threshold.json").read_text())
    assert record["weights_sha256"] == sha256_of(tmp_path / "model.pt")


def test_weights_that_were_replaced_have_no_threshold(tmp_path):
    Run(tmp_path, [0.3])()
    torch.save({"weight": torch.zeros(1, 1)}, tmp_path / "model.pt")
    with pytest.raises(
        InputError, match=r"threshold of model\.pt, got one of other weights; pass --threshold"
    ):
        load_threshold(tmp_path / "model.pt")


def test_a_stale_threshold_beside_newer_weights_is_refused_until_the_run_goes_on(tmp_path, monkeypatch):
    scores, thresholds = [0.3, 0.7, 0.1], [0.2, 0.4, 0.5]
    written = killed_at_write(6, monkeypatch)
    with pytest.raises(Killed):
        Run(tmp_path, scores, thresholds=thresholds)()
    monkeypatch.undo()
    assert written[-2:] == ["model.pt", "threshold.json"]
    with pytest.raises(InputError, match="start a killed training again"):
        load_threshold(tmp_path / "model.pt")
    Run(tmp_path, scores, thresholds=thresholds)()
    assert load_threshold(tmp_path / "model.pt") == 0.4


def test_weights_without_a_stored_threshold_take_the_default(tmp_path):
    (tmp_path / "model.pt").write_bytes(b"weights")
    assert load_threshold(tmp_path / "model.pt", default=0.25) == 0.25


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"weights_sha256": "", "threshold": 1.5}',
    ],
    ids=["cut", "list", "empty", "above_1"],
)
def test_a_threshold_file_that_cannot_be_read_is_refused(tmp_path, text):
    (tmp_path / "model.pt").write_bytes(b"weights")
    (tmp_path / "threshold.json").write_text(text)
    with pytest.raises(InputError, match=r"threshold\.json: expected a threshold between 0 and 1"):
        load_threshold(tmp_path / "model.pt")


def test_a_folder_that_cannot_be_written_is_refused_before_the_first_epoch(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    run = Run(tmp_path / "file", [0.3])
    with pytest.raises(InputError, match="expected a folder that can be written"):
        run()
    assert run.trained == []


def test_ranks_behind_the_first_write_nothing(tmp_path, monkeypatch):
    for name, value in {"is_available": True, "is_initialized": True, "get_rank": 1}.items():
        monkeypatch.setattr(torch.distributed, name, lambda value=value: value)
    run = Run(tmp_path / "models", [0.3])()
    assert not (tmp_path / "models").exists()
    assert run.handler.best["metric"] == 0.3
