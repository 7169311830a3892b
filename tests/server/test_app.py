"""The provider's protocol from top to bottom, over a grid and a trainer that are made up."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import ray
from fake_grid import (
    Behaviour,
    Clock,
    FakeGrid,
    Reply,
    answer,
    link,
    make_shard,
    provider_view,
)
from flwr.app import Error
from flwr.superlink.grid import InMemoryGrid

import server.app
from fedenc.errors import EngineError, QuorumError
from fedenc.scenario import ProviderView
from fedenc.scenario.sections import Model, Server
from fedenc.training.loop import Progress
from server.app import Event, Given, Outcome, serve
from server.collector import QUERIES, SCORE, UPLOAD
from server.exchange import Exchange, window_of
from server.pool import Pool
from server.trainer import Awaited, Trained, Trainer

MODEL = Trained({"model.safetensors": b"weights"}, "0" * 64, "cpu", 1, "fp32", 1, 1.0, 1.0, 0.1, [])


class FakeTrainer:
    """Notes what is asked of it, between the kinds of message that the nodes see."""

    def __init__(self, log: list[str]) -> None:
        self.log = log

    def where(self) -> str:
        self.log.append("where")
        return "nothing"

    def load(self, pool: Pool) -> None:
        self.log.append(f"load {pool.rows}")

    def train(
        self,
        state: bytes | None,
        on_progress: Callable[[Progress], None],
        on_checkpoint: Callable[[bytes], None],
        model: Model | None = None,
    ) -> Trained:
        self.log.append(f"train {model.input if model else ''} from {state!r}".replace("  ", " "))
        on_progress(Progress(1, 1, 4, 4, 0.1, 0.9, 1.0, 1.0, 0.0, 0.1))
        on_checkpoint(b"state")
        return MODEL

    def adopt(self, files: Any, foreign: Any = None) -> None:
        self.log.append(f"adopt {files} {foreign}")

    def predict(self, images: npt.NDArray[np.uint8], *, foreign: bool = False) -> Awaited:
        return lambda: np.zeros((len(images), 5), np.float32)

    def close(self) -> None:
        self.log.append("close")


def honest(node: int, kind: str, facts: dict[str, Any]) -> Sequence[Reply]:
    if kind == UPLOAD:
        return [(0.1, answer([node], [make_shard(node)] if node < 4 else []))]
    if kind == QUERIES:
        return [(0.1, answer([node], [make_shard(node, purpose=c) for c in facts["conditions"]]))]
    total = {"plain": 3, "encrypted": 3}
    counts = {"correct": total, "total": total, "agree": 3, "pairs": 3, "both": 3}
    return [(0.1, answer([node], scores={str(node): counts}))]


def run(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    behaviour: Behaviour = honest,
    given: Given | None = None,
    nodes: int = 5,
    compare: tuple[str, ...] = (),
) -> tuple[Outcome, list[str], list[Event]]:
    log: list[str] = []

    def watched(node: int, kind: str, facts: dict[str, Any]) -> Sequence[Reply]:
        if kind not in log:
            log.append(kind)
        return behaviour(node, kind, facts)

    def make(view: ProviderView) -> Trainer:
        log.append("made")
        return FakeTrainer(log)

    exchange, grid = link(monkeypatch, watched)
    grid.node_ids = range(nodes)
    monkeypatch.setattr(server.app, "Exchange", lambda *arguments: exchange)
    monkeypatch.setattr("server.app.time", grid.clock)
    monkeypatch.setattr(server.app, "_make_trainer", make)
    events: list[Event] = []
    try:
        view = provider_view().model_copy(update={"model": Model(compare=compare)})
        outcome = serve(grid, view, 5, folder, events.append, given)  # type: ignore[arg-type]
    except BaseException:
        assert log[0] == "made"
        assert log[-1] == "close"
        assert "where" not in log
        raise
    return outcome, log, events


def test_the_trainer_is_made_first_and_waited_for_after_the_uploads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    outcome, log, events = run(monkeypatch, tmp_path)
    asked = [UPLOAD, "where", "load 12", "train from None", QUERIES, SCORE]
    assert outcome.failed == []
    assert log == ["made", *asked, "close"]
    phases = list(dict.fromkeys(event.phase for event in events))
    assert phases == ["nodes", "upload", "training", "queries", "score"]
    assert outcome.model == MODEL
    assert sorted(outcome.uploads) == [0, 1, 2, 3]
    assert sorted(outcome.answered.tallies) == [0, 1, 2, 3, 4]
    _, log, _ = run(monkeypatch, tmp_path)
    assert "train from b'state'" in log, "the checkpoint of the same uploads is found again"
    assert Pool(tmp_path / "pool").participants == (0, 1, 2, 3)


def test_further_input_stages_are_trained_on_the_same_uploads_and_asked_in_turn(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    outcome, log, events = run(monkeypatch, tmp_path, compare=("invariant",))
    trained = ["load 12", "train from None", QUERIES, SCORE, "train invariant from None"]
    assert log == ["made", UPLOAD, "where", *trained, "close"]
    assert list(outcome.compared) == ["invariant"]
    assert outcome.compared["invariant"].answered.tallies == outcome.answered.tallies
    named = {"training invariant", "queries invariant", "score invariant"}
    assert named <= {event.phase for event in events}
    checkpoints = sorted(path.name for path in tmp_path.glob("checkpoint-*"))
    assert len(checkpoints) == 2
    assert sum("invariant" in name for name in checkpoints) == 1


def test_given_classifiers_answer_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = Given({"a": b""}, "0" * 64)
    outcome, log, _ = run(monkeypatch, tmp_path, given=given)
    assert log == ["made", "adopt {'a': b''} None", QUERIES, SCORE, "close"]
    assert outcome.model == given
    assert not (tmp_path / "pool").exists()


def test_too_few_uploads_close_a_trainer_that_nobody_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(QuorumError):
        run(monkeypatch, tmp_path, lambda node, kind, facts: [(0.1, Error(1, "broken"))])


def test_nodes_that_never_register_close_it_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(EngineError, match="4 of 5 Flower nodes registered within 60 s"):
        run(monkeypatch, tmp_path, nodes=4)


def test_too_few_gpus_show_before_anyone_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"GPU": 1.0, "CPU": 8.0})
    grid: Any = SimpleNamespace()  # which nobody may use
    with pytest.raises(EngineError, match="workers = 2, but the Ray cluster has 1 GPUs"):
        serve(grid, provider_view(server=Server(workers=2)), 1, tmp_path, print)


def test_in_a_simulation_the_window_follows_the_client_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Simulated(FakeGrid, InMemoryGrid):
        pass

    monkeypatch.setattr(server.app, "client_processes", lambda: 3)
    for kind, window in ((Simulated, window_of(3)), (FakeGrid, Exchange.window)):
        grid: Any = kind(Clock(), honest)
        grid.node_ids = range(5)
        exchange, _ = server.app._meet(grid, provider_view(), 5, lambda event: None)
        assert exchange.window == window
