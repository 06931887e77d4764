"""Steps that work at the same time: order, errors, bounds; batches, and what too little GPU memory does to them."""

import itertools
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from xray.errors import InputError
from xray.inference.findings import Findings
from xray.inference.streaming import DEPTH, ahead, batches, consecutive, portion_of, run
from xray.radiographs.decoding import Decoded, Undecodable
from xray.structures.boxes import BoxTable


def items(pattern):
    """ "ddu" → two decoded radiographs and one that is not."""
    return [
        Decoded(n, Path(f"{n}.png"), np.full((4, 4), n % 256, dtype=np.uint8), 8, 6, None)
        if kind == "d"
        else Undecodable(n, Path(f"{n}.png"), "broken")
        for n, kind in enumerate(pattern)
    ]


def test_batches_hold_so_many_decoded_ones():
    found = [[item.index for item in batch] for batch in batches(items("dduduudd"), 2)]
    assert found == [[0, 1], [2, 3, 4, 5, 6], [7]]
    assert list(batches([], 2)) == []
    assert [len(batch) for batch in batches(items("uu"), 2)] == [2]


def test_what_stands_together_depends_on_places_alone():
    assert list(consecutive(range(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    # Gone on with after a whole number of batches, the rest is the same.
    assert list(consecutive(range(3, 7), 3)) == [[3, 4, 5], [6]]
    assert list(consecutive([], 3)) == []


class Fake:
    """A pipeline that finds the grey value of each canvas, and has memory for `most` of them."""

    def __init__(self, most=100):
        self.most, self.sizes = most, []

    def forward(self, canvases):
        if len(canvases) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.sizes.append(len(canvases))
        return canvases[:, 0, 0]

    def postprocess(self, outputs, sizes):
        assert len(outputs) == len(sizes)
        n = len(outputs)
        return Findings(BoxTable.of(range(n), outputs, [[0, 0, 1, 1]] * n, [0.5] * n), labels={"x": outputs / 10})


def collect(pipeline, pattern, size):
    written = []
    run(pipeline, batches(items(pattern), size), written.append)
    return written


def test_post_processing_and_writing_overlap_and_keep_the_order():
    written, both_at_work = [], threading.Barrier(2)

    class Meeting(Fake):
        def postprocess(self, outputs, sizes):
            if outputs[0]:
                both_at_work.wait(timeout=600)
            return super().postprocess(outputs, sizes)

    def write(batch):
        if batch.items[0].index < 19:
            both_at_work.wait(timeout=600)
        written.append(batch.items[0].index)

    run(Meeting(), batches(items("d" * 20), 1), write)
    assert written == list(range(20))


def test_no_more_wait_than_there_is_room_for():
    may_go, pipeline = threading.Event(), Fake()
    thread = threading.Thread(target=run, args=(pipeline, batches(items("d" * 20), 1), lambda _: may_go.wait()))
    thread.start()
    time.sleep(0.4)
    assert len(pipeline.sizes) <= DEPTH + 1
    may_go.set()
    thread.join()
    assert len(pipeline.sizes) == 20


@pytest.mark.parametrize("where", ["postprocess", "write", "last item"])
def test_what_a_step_raises_is_raised(where):
    def fail_at(place, value):
        if (where, value) in ((place, 5), ("last item", 9)):
            raise ZeroDivisionError(f"in {place}")

    class Failing(Fake):
        def postprocess(self, outputs, sizes):
            fail_at("postprocess", int(outputs[0]))
            return super().postprocess(outputs, sizes)

    written = []

    def write(batch):
        fail_at("write", batch.items[0].index)
        written.append(batch.items[0].index)

    with pytest.raises(ZeroDivisionError):
        run(Failing(), batches(items("d" * 10), 1), write)
    assert written == list(range(9 if where == "last item" else 5))


def test_an_interruption_drops_what_waits():
    written, begun, may_go = [], threading.Event(), threading.Event()

    def write(batch):
        begun.set()
        may_go.wait(timeout=600)
        written.append(batch)

    def interrupted():
        yield from batches(items("ddd"), 1)
        begun.wait(timeout=600)
        threading.Timer(0.2, may_go.set).start()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(Fake(), interrupted(), write)
    assert len(written) == 1


def test_reading_ahead():
    assert list(ahead(range(50), 3)) == list(range(50))
    taken = []
    reader = ahead((taken.append(n) or n for n in itertools.count()), 3)
    assert [next(reader), next(reader)] == [0, 1]
    time.sleep(0.1)
    assert len(taken) <= 6
    reader.close()

    def broken():
        yield 1
        raise OSError("gone")

    reader = ahead(broken(), 3)
    assert next(reader) == 1
    with pytest.raises(OSError, match="gone"):
        next(reader)


def test_everything_is_written_once_and_in_order():
    written = collect(Fake(), "dduuddudud", 3)
    assert [item.index for batch in written for item in batch.items] == list(range(10))
    portions = [portion_of(batch, begin=100) for batch in written]
    assert portions[-1].stop == 110
    found = np.concatenate([portion.table.images for portion in portions])
    assert found.tolist() == [100, 101, 104, 105, 107, 109]
    assert np.concatenate([portion.table.labels for portion in portions]).tolist() == [0, 1, 4, 5, 7, 9]
    assert [n for portion in portions for n, _, _ in portion.failures] == [102, 103, 106, 108]
    assert portions[0].labels == {100: {"x": 0.0}, 101: {"x": 0.1}, 104: {"x": 0.4}}
    assert portions[0].sizes[104] == (8, 6)


def test_only_broken_files(capsys):
    assert [portion_of(batch, 0).stop for batch in collect(Fake(), "uuu", 2)] == [3]


def test_too_little_gpu_memory_halves_the_batches(capsys):
    pipeline = Fake(most=3)
    written = collect(pipeline, "ddduddddddddddddu", 8)
    assert [item.index for batch in written for item in batch.items] == list(range(17))
    assert pipeline.sizes == [2] * 7 + [1]
    assert capsys.readouterr().err.splitlines() == [
        "8 radiographs do not fit into the GPU's memory: trying 4",
        "4 radiographs do not fit into the GPU's memory: trying 2",
    ]
    with pytest.raises(InputError, match="too little memory for one radiograph"):
        collect(Fake(most=0), "dd", 2)


def test_a_failing_writer_stops_the_models():
    pipeline = Fake()

    def write(batch):
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        run(pipeline, batches(items("d" * 500), 1), write)
    assert len(pipeline.sizes) < 100
