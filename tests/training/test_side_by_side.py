"""Commands as processes: one after another or side by side, what they print, and how they end together."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from xray import __version__, interrupts
from xray.training import side_by_side
from xray.training.side_by_side import Work, run_all

SLOTS = [{"NUMBER": "one"}, {"NUMBER": "two"}]


def sleeper(*lines):
    return [sys.executable, "-c", "\n".join(("import os, signal, sys, time", *lines))]


@pytest.fixture
def scripts(monkeypatch):
    """Lets works be Python programs: their commands are lines of them."""
    popen = subprocess.Popen

    def start(words, **options):
        assert words[:4] == [sys.executable, "-P", "-m", "xray"]
        return popen(sleeper(*words[4:]), **options)

    monkeypatch.setattr(side_by_side.subprocess, "Popen", start)


def test_the_command_of_this_very_package_runs_wherever_one_is(tmp_path, monkeypatch, capfd):
    (tmp_path / "xray").mkdir()
    (tmp_path / "xray" / "__main__.py").write_text("print('another')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    done = []
    assert run_all([Work("fold0", (("--version",),))], [{}], lambda *what: done.append(what)) == (0, "")
    assert capfd.readouterr().out == f"\nfold0: --version\nxray {__version__}\n"
    assert [(work.name, command) for work, command in done] == [("fold0", "--version")]


@pytest.mark.parametrize(("is_command", "spelled"), [(True, "xray infer"), (False, "python tools/infer.py")])
def test_processes_spell_commands_as_the_one_that_started_them(scripts, monkeypatch, capfd, is_command, spelled):
    monkeypatch.setattr("xray.errors._IS_COMMAND", is_command)
    lines = ("sys.argv = ['xray/__main__.py']", "from xray.errors import spelled", "print(spelled('infer'))")
    run_all([Work("fold0", (lines,))], [{}], lambda *_: None)
    assert capfd.readouterr().out.splitlines()[-1] == spelled


def test_a_works_commands_follow_one_another_and_works_their_order(scripts, tmp_path):
    file = tmp_path / "said"
    add = [(f"open({str(file)!r}, 'a').write('{letter}')",) for letter in "abcd"]
    run_all([Work("one", (add[0], add[1])), Work("none", ()), Work("two", (add[2], add[3]))], [{}], lambda *_: None)
    assert file.read_text() == "abcd"


def test_side_by_side_each_has_its_environment_and_its_name_before_each_line(scripts, tmp_path, capfd):
    """Each waits for the other's file, so that both must run at a time."""
    works = []
    for own, other in (("a", "b"), ("b", "a")):
        lines = (
            f"open({str(tmp_path / own)!r}, 'w')",
            f"while not os.path.exists({str(tmp_path / other)!r}): time.sleep(0.01)",
            "print(os.environ['NUMBER'])",
            "print('problem', file=sys.stderr)",
        )
        works.append(Work(own, (lines,)))
    assert run_all(works, SLOTS, lambda *_: None) == (0, "")
    out, err = capfd.readouterr()
    assert sorted(out.splitlines()) == ["a: one", "b: two"]
    assert sorted(err.splitlines()) == ["a: problem", "b: problem"]


def test_the_first_failure_stops_the_others_and_begins_no_more(scripts, tmp_path):
    begun = tmp_path / "begun"
    fails = (f"while not os.path.exists({str(begun)!r}): time.sleep(0.01)", "sys.exit(3)")
    waits = (
        f"signal.signal(signal.SIGTERM, lambda *_: (open({str(tmp_path / 'saved')!r}, 'w'), sys.exit(143)))",
        f"open({str(begun)!r}, 'w')",
        "time.sleep(600)",
    )
    never = (f"open({str(tmp_path / 'never')!r}, 'w')",)
    works = [Work("fold0", (fails, never)), Work("fold1", (waits,)), Work("fold2", (never,))]
    assert run_all(works, SLOTS, lambda *_: None) == (3, "fold0")
    assert (tmp_path / "saved").exists()
    assert not (tmp_path / "never").exists()


def test_sigterm_is_handed_on_and_waited_for(scripts, tmp_path):
    begun = tmp_path / "begun"
    waits = (
        f"saved = {str(tmp_path / 'saved')!r}",
        "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.5), open(saved, 'w'), sys.exit(143)))",
        f"open({str(begun)!r}, 'w')",
        "time.sleep(600)",
    )

    def send():
        while not begun.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=send)
    thread.start()
    never = (f"open({str(tmp_path / 'never')!r}, 'w')",)
    status, _ = run_all([Work("fold0", (waits, never)), Work("fold1", (never,))], [{}], lambda *_: None)
    thread.join()
    assert status == 143
    assert (tmp_path / "saved").exists()
    assert not (tmp_path / "never").exists()
    assert signal.getsignal(signal.SIGTERM) == before


def test_what_is_raised_meanwhile_ends_the_processes(scripts, tmp_path, monkeypatch):
    started, start = [], side_by_side.start

    def note(*args, **options):
        started.append(start(*args, **options))
        return started[-1]

    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(side_by_side, "start", note)
    monkeypatch.setattr(side_by_side.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_all([Work("fold0", (("time.sleep(600)",),))], [{}], lambda *_: None)
    assert started[0].returncode == -signal.SIGKILL


@pytest.mark.skipif(os.name != "posix", reason="processes of Windows do not change their parent")
def test_a_process_ends_when_the_one_that_started_it_was_killed(tmp_path):
    """A training would else go on writing into a run that is resumed meanwhile."""
    child = (
        "import os, time\nfrom xray import interrupts\ninterrupts.LOOK = 0.05\ninterrupts.follow_parent()\n"
        f"assert interrupts.PARENT not in os.environ\nopen({str(tmp_path / 'begun')!r}, 'w')\ntime.sleep(600)"
    )
    parent = (
        f"import os, subprocess, sys, time\nos.environ['{interrupts.PARENT}'] = str(os.getpid())\n"
        f"process = subprocess.Popen([sys.executable, '-c', {child!r}])\nprint(process.pid, flush=True)\n"
        "time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as process:
        # Its pipe, which the child has too, is at an end when both have ended.
        number = int(process.stdout.readline())
        while not (tmp_path / "begun").exists():
            time.sleep(0.01)
        assert os.path.exists(f"/proc/{number}") or not os.path.isdir("/proc")
        process.kill()
        assert process.stdout.read() == ""
