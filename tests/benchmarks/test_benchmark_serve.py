"""The serving benchmark: what is counted as what, and a real server under a small load."""

import json

import pytest

from benchmarks import serve
from benchmarks.serve import Answer, File
from xray.errors import FlagError, InputError


def test_counts_by_hand():
    requests = [Answer(False, 200, "", seconds, 1) for seconds in (1.0, 2.0, 3.0)]
    requests += [Answer(True, 422, "damaged", 9.0, 0), Answer(True, 415, "none", 9.0, 2)]
    found = serve.summary(requests, 2.0)
    assert (found["answered"], found["refused"], found["errors"], found["busy"]) == (3, 2, [], 5)
    assert found["seconds"] == {"p50": 2.0, "p95": pytest.approx(2.9)}
    assert found["answers_per_second"] == 1.5
    wrong = [Answer(False, 0, "refused", 1.0, 0), Answer(True, 200, "", 1.0, 0), Answer(False, 422, "damaged", 1.0, 0)]
    assert serve.summary(wrong, 1.0)["errors"] == [
        "a good file got no answer refused",
        "a broken file got 200",
        "a good file got 422 damaged",
    ]


def test_every_tenth_file_is_broken_and_each_in_its_way(tmp_path):
    from xray.radiographs.radiograph import RadiographError, read_radiograph

    files = serve.write_files(tmp_path, 64, 10)
    assert [number for number, file in enumerate(files) if file.is_broken] == [9, 19, 29, 39]
    assert len({file.content for file in files if file.is_broken}) == 4
    for file in files[:10] + files[19::10]:
        (tmp_path / "file").write_bytes(file.content)
        if file.is_broken:
            with pytest.raises(RadiographError):
                read_radiograph(tmp_path / "file")
        else:
            assert max(read_radiograph(tmp_path / "file").pixels.shape) == 64
    assert not any(file.is_broken for file in serve.write_files(tmp_path / "other", 64, 0))


def test_a_server_that_is_not_there_is_an_error():
    asked = serve.send("http://127.0.0.1:1/", File(b"x", False))
    assert asked.status == 0
    assert "refused" in asked.line


@pytest.mark.slow
def test_a_server_that_does_not_start_says_why(tmp_path):
    with (
        pytest.raises(InputError, match="the server did not start: error: no run directory"),
        serve.server([str(tmp_path / "nowhere")], []),
    ):
        pass


def test_refuses_unusable_flags():
    with pytest.raises(FlagError, match="--n-clients is 0"):
        serve.main(serve.Config(n_clients=0))


@pytest.mark.slow
def test_a_real_server(tmp_path, capsys):
    serve.main(
        serve.Config(n_requests=40, n_clients=6, places=3, radiograph_size=128, save_path=tmp_path / "serve.json")
    )
    report = json.loads((tmp_path / "serve.json").read_text())
    assert (report["answered"], report["refused"], report["errors"]) == (36, 4, [])
    assert report["busy"] > 0
    assert 0 < report["seconds"]["p50"] <= report["seconds"]["p95"]
    assert all(value > 50 << 20 for value in report["held"].values())
    assert "told to come back" in capsys.readouterr().out
