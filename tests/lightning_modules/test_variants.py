"""One training after another: what is done is left, what fails is left behind, and a signal reaches the training."""

import os
import signal
import subprocess
import sys
import time

import pytest

from lightning_modules import variants
from lightning_modules.runs import RunError
from lightning_modules.saving import STATUS, PreemptedError
from lightning_modules.variants import start_process, train_all

CONFIG = "name: {}\nmodel: {{}}\ndata: {{}}\ntrainer: {{}}\noptim: {{}}\n"


def configs(folder, *names):
    return {folder / name: CONFIG.format(name) for name in names}


def trainer(seen, **statuses):
    """Stands in for a training: writes its metrics unless it is to fail."""

    def start(config):
        seen.append(config.parent.name)
        status = statuses.get(config.parent.name, 0)
        if status == 0:
            (config.parent / "metrics.json").write_text("{}")
        return status

    return start


def test_each_is_trained_once_in_order(tmp_path, capsys):
    seen = []
    assert train_all(configs(tmp_path, "a", "b", "c"), trainer(seen)) == {}
    assert seen == ["a", "b", "c"]
    said = capsys.readouterr().out
    assert "variant 1 of 3, a: no estimate" in said
    assert "variant 3 of 3, c: less than a minute left" in said
    assert train_all(configs(tmp_path, "a", "b", "c"), trainer(seen)) == {}
    assert seen == ["a", "b", "c"]
    assert "variant 2 of 3, b: finished before" in capsys.readouterr().out


def test_the_time_left_is_that_of_the_mean():
    assert variants._time_left([60, 180], 4) == "about 8 min left"


def test_one_that_fails_is_left_behind_and_tried_again(tmp_path, capsys):
    seen = []
    assert train_all(configs(tmp_path, "a", "b", "c"), trainer(seen, b=1)) == {tmp_path / "b": 1}
    assert seen == ["a", "b", "c"]
    assert "variant 2 of 3, b: failed with status 1" in capsys.readouterr().err
    assert train_all(configs(tmp_path, "a", "b", "c"), trainer(seen)) == {}
    assert seen == ["a", "b", "c", "b"]


def test_one_that_ends_without_metrics_has_failed(tmp_path):
    assert train_all(configs(tmp_path, "a"), lambda config: 0) == {tmp_path / "a": 1}


def test_another_configuration_is_an_error_before_anything_is_trained(tmp_path):
    seen = []
    train_all(configs(tmp_path, "b"), trainer(seen))
    changed = {**configs(tmp_path, "a"), tmp_path / "b": CONFIG.format("b").replace("model: {}", "model: {width: 2}")}
    with pytest.raises(RunError, match="holds a run with another configuration"):
        train_all(changed, trainer(seen))
    assert seen == ["b"]


def test_told_to_go(tmp_path):
    seen = []
    with pytest.raises(PreemptedError) as left:
        train_all(configs(tmp_path, "a", "b"), trainer(seen, a=STATUS))
    assert left.value.code == STATUS
    assert seen == ["a"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_told_to_go_while_a_variant_ends_or_between_two(tmp_path, number):
    """The one that has just ended is finished, and the next is not begun."""
    seen, before = [], signal.getsignal(number)  # other tests leave handlers of their libraries
    finish = trainer(seen)

    def start(config):
        os.kill(os.getpid(), number)
        return finish(config)

    with pytest.raises(PreemptedError):
        train_all(configs(tmp_path, "a", "b"), start)
    assert seen == ["a"]
    assert train_all(configs(tmp_path, "a", "b"), finish) == {}
    assert seen == ["a", "b"]
    assert signal.getsignal(number) == before


@pytest.fixture
def root_of(tmp_path, monkeypatch):
    """Puts scripts in the places of train.py and eval.py."""

    def put(code, measuring=""):
        (tmp_path / "train.py").write_text(code)
        (tmp_path / "eval.py").write_text(measuring)
        monkeypatch.setattr(variants, "ROOT", tmp_path)
        return tmp_path

    return put


def test_a_signal_is_passed_on(root_of):
    folder = root_of("import os, signal, time\nos.kill(os.getppid(), signal.SIGUSR1)\ntime.sleep(60)")
    before = signal.getsignal(signal.SIGUSR1)
    assert start_process(folder / "config.yaml") == STATUS
    assert signal.getsignal(signal.SIGUSR1) == before


def test_a_training_that_is_told_when_it_has_ended_is_the_last(root_of):
    """It passes no status on, for it was done; what would follow is not begun all the same."""
    code = "import os, signal, sys, pathlib\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    folder = root_of(code + "pathlib.Path(sys.argv[1]).with_name('metrics.json').write_text('{}')\nos.kill(os.getppid(), signal.SIGTERM)")
    with pytest.raises(PreemptedError):
        train_all(configs(folder, "a", "b"))
    assert [(folder / name).exists() for name in ("a", "b")] == [True, False]


def test_a_status_is_passed_back(root_of):
    folder = root_of("import sys\nsys.exit(3 if sys.argv[1].endswith('config.yaml') else 4)")
    assert start_process(folder / "config.yaml") == 3


def test_a_process_trains_and_another_measures(root_of):
    note = (
        "import os, pathlib, sys\nwith (pathlib.Path(__file__).parent / 'told').open('a') as f: print(os.getpid(), *sys.argv[1:], file=f)\n"
    )
    folder = root_of(note, note + "sys.exit(5)")
    assert start_process(folder / "config.yaml") == 5
    (first, *trained), (second, *measured) = (line.split() for line in (folder / "told").read_text().splitlines())
    assert trained == [str(folder / "config.yaml"), "--no-evaluation"]
    assert measured == [str(folder)]
    assert first != second


def test_what_fails_is_not_measured(root_of):
    folder = root_of("import sys; sys.exit(3)", "import pathlib; (pathlib.Path(__file__).parent / 'told').touch()")
    assert start_process(folder / "config.yaml") == 3
    assert not (folder / "told").exists()


def test_a_signal_while_it_is_measured_is_passed_on(root_of):
    folder = root_of("", "import os, signal, time\nos.kill(os.getppid(), signal.SIGTERM)\ntime.sleep(60)")
    assert start_process(folder / "config.yaml") == STATUS


def test_a_training_ends_with_its_starter(tmp_path, root):
    """Though that one was killed and could tell nobody."""
    told = tmp_path / "pid"
    training = (
        "import os, sys, time, pathlib; from lightning_modules.entry import STARTER, run_entry; "
        "run_entry(lambda: pathlib.Path(sys.argv[1]).write_text(f'{os.getpid()} {STARTER in os.environ}') and time.sleep(60))"
    )
    starter = (
        "import os, subprocess, sys; from lightning_modules.entry import STARTER; "
        "subprocess.run([sys.executable, '-c', *sys.argv[1:]], env={**os.environ, STARTER: str(os.getpid())})"
    )
    process = subprocess.Popen([sys.executable, "-c", starter, training, str(told)], cwd=root)
    _until(lambda: told.exists() and told.read_text())
    process.kill()
    process.wait()
    number, inherited = told.read_text().split()
    assert inherited == "False"
    _until(lambda: not _alive(int(number)))


def _until(true, seconds=60):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


def _alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout.strip()[:1] not in (
        "Z",
        "",
    )
