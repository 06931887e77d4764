"""The models' thread: places, order, batches, failures, and what is dropped."""

import threading
import time

import numpy as np
import pytest

from xray.inference.findings import Findings
from xray.serving.worker import BusyError, ModelError, ModelThread, of_one
from xray.structures.boxes import BoxTable

SIZE = (40, 50)


class Counting:
    """Models that find as many boxes as the canvas's first pixel says, while their gate is open."""

    canvas_size = 8
    bits = 8

    def __init__(self):
        self.passes = []
        self.gate = threading.Event()

    def find(self, canvases, sizes):
        self.passes.append([int(canvas[0, 0]) for canvas in canvases])
        assert sizes == [SIZE] * len(canvases)
        self.gate.wait(10)
        if any(canvas[0, 0] == 99 for canvas in canvases):
            raise ValueError("99 is too many")
        images = [image for image, canvas in enumerate(canvases) for _ in range(canvas[0, 0])]
        return Findings(BoxTable.of(images, [1] * len(images), [(0, 0, 1, 1)] * len(images)))


def canvas(n):
    return np.full((8, 8), n, dtype=np.uint8)


@pytest.fixture
def models():
    models = Counting()
    yield models
    models.gate.set()


def until(condition):
    deadline = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_answers_in_order_with_each_its_own(models):
    models.gate.set()
    with ModelThread(models, batch_size=2) as thread:
        places = [thread.enter() for _ in range(5)]
        futures = [place.submit(canvas(n), SIZE) for n, place in enumerate(places)]
        assert [len(future.result(10).table) for future in futures] == [0, 1, 2, 3, 4]
        assert all((future.result().table.images == 0).all() for future in futures)
        assert [n for batch in models.passes for n in batch] == [0, 1, 2, 3, 4]
        assert max(map(len, models.passes)) <= 2


@pytest.mark.parametrize("keeps_maps", [False, True])
def test_maps_come_with_findings_only_where_something_is_made_of_them(keeps_maps):
    maps = np.linspace(0, 1, 2 * 3 * 16, dtype=np.float32).reshape(2, 3, 4, 4)
    one = of_one(Findings(BoxTable.empty(), {}, maps, {}), 1, keeps_maps)
    if keeps_maps:
        np.testing.assert_array_equal(one.maps, maps[1:])
    else:
        assert one.maps is None


def test_what_waits_is_taken_together_and_knows_its_place(models):
    with ModelThread(models, batch_size=3) as thread:
        places = [thread.enter() for _ in range(5)]
        assert places[0].state == ("receiving", 0)
        futures = [places[0].submit(canvas(0), SIZE)]
        until(lambda: models.passes)
        futures += [place.submit(canvas(1), SIZE) for place in places[1:]]
        assert [place.state for place in places] == [("running", 0), *(("waiting", number) for number in range(4))]
        assert thread.load == {"places": 32, "taken": 5, "waiting": 4, "running": 1}
        models.gate.set()
        [future.result(10) for future in futures]
        assert models.passes == [[0], [1, 1, 1], [1]]
        assert places[0].state == ("done", 0)


def test_places_are_bounded_and_given_back(models):
    with ModelThread(models, capacity=2) as thread:
        first = thread.enter()
        with thread.enter(), pytest.raises(BusyError) as busy:
            thread.enter()
        assert 1 <= busy.value.retry_after <= 30
        with thread.enter():
            pass
        with first:
            pass
        assert thread.load["taken"] == 0


def test_a_place_that_is_left_takes_its_radiograph_out_of_the_queue(models):
    with ModelThread(models) as thread:
        running = thread.enter().submit(canvas(0), SIZE)
        until(lambda: models.passes)
        with thread.enter() as place:
            left = place.submit(canvas(7), SIZE)
        last = thread.enter().submit(canvas(2), SIZE)
        assert left.cancelled()
        assert thread.load["waiting"] == 1
        models.gate.set()
        assert len(running.result(10).table) == 0
        assert len(last.result(10).table) == 2
        assert models.passes == [[0], [2]]


def test_a_failure_costs_its_radiograph_alone(models):
    with ModelThread(models, batch_size=3) as thread:
        first = thread.enter().submit(canvas(0), SIZE)
        until(lambda: models.passes)
        futures = [thread.enter().submit(canvas(n), SIZE) for n in (1, 99, 2)]
        models.gate.set()
        assert len(futures[0].result(10).table) == 1
        with pytest.raises(ModelError, match=r"failed on this radiograph \(ValueError\)"):
            futures[1].result(10)
        assert len(futures[2].result(10).table) == 2
        assert first.done()
        assert thread.is_alive


def test_stopping_fails_what_waits(models):
    thread = ModelThread(models)
    with thread:
        running = thread.enter().submit(canvas(1), SIZE)
        until(lambda: models.passes)
        waiting = thread.enter().submit(canvas(1), SIZE)
    with pytest.raises(ModelError, match="being stopped"):
        waiting.result(10)
    assert not thread.is_alive
    models.gate.set()
    assert len(running.result(10).table) == 1


def test_one_of_a_batch_keeps_its_masks_and_labels():
    table = BoxTable.of([0, 1, 1], [1, 2, 3], [(0, 0, 1, 1)] * 3, [0.1, 0.2, 0.3])
    found = Findings(table, {0: "first", 2: "third"}, None, {"abnormal": np.array([0.5, 0.7])})
    own = of_one(found, 1)
    assert own.table.labels.tolist() == [2, 3]
    assert own.table.images.tolist() == [0, 0]
    assert own.masks == {1: "third"}
    assert own.labels["abnormal"].tolist() == [0.7]
