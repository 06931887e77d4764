"""Whichever of several workers is asked how the server is speaks of all of them."""

from serving_cases import Clock

from xray.serving.together import FRESH, Together, forget


def state(status="ok", taken=0, dicom=None):
    return {"status": status, "places": 8, "taken": taken, "dicom": dicom}


def test_numbers_are_added_up_and_the_node_is_found(tmp_path):
    clock, states = Clock(), [state(taken=1, dicom={"waiting": 3}), state(taken=2), state(taken=4)]
    workers = [Together(tmp_path, number, 3, lambda at=number: states[at], clock) for number in range(3)]
    alone = workers[1].of_all(states[1])
    assert alone == {"status": "ok", "places": 8, "taken": 2, "dicom": None, "workers": {"wanted": 3, "working": 1}}
    for worker in workers:
        worker.tell()
    for number, worker in enumerate(workers):
        found = worker.of_all(states[number])
        assert found == {
            "status": "ok",
            "places": 24,
            "taken": 7,
            "dicom": {"waiting": 3},
            "workers": {"wanted": 3, "working": 3},
        }
    forget(tmp_path, 2)
    assert workers[1].of_all(states[1])["workers"] == {"wanted": 3, "working": 2}
    assert workers[1].of_all(states[1])["places"] == 16


def test_who_does_not_work_or_says_nothing_is_not_counted(tmp_path):
    clock = Clock()
    first, second = (Together(tmp_path, n, 2, lambda: state("stopped", 5, {"waiting": 1}), clock) for n in (0, 1))
    first.tell()
    found = second.of_all(state(taken=1))
    assert (found["places"], found["taken"], found["workers"]["working"]) == (8, 1, 1)
    # The queue on the disk stands whatever its worker does.
    assert found["dicom"] == {"waiting": 1}
    assert first.of_all(state("stopped"))["workers"] == {"wanted": 2, "working": 0}
    clock.now += FRESH + 1
    assert second.of_all(state())["dicom"] is None
    (tmp_path / "0.json").write_text("{")
    assert second.of_all(state())["workers"] == {"wanted": 2, "working": 1}


def test_it_tells_on_its_own_until_it_is_closed(tmp_path):
    worker = Together(tmp_path, 0, 2, state)
    worker.keep_telling()
    assert (tmp_path / "0.json").is_file()
    worker.close()
