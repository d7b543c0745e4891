"""One training after another: what is done is left, what fails is left behind, and a signal reaches the training."""

import os
import signal
import subprocess
import sys
import time
from functools import partial

import pytest

from lightning_modules import variants
from lightning_modules.runs import RunError
from lightning_modules.saving import STATUS, PreemptedError
from lightning_modules.variants import start_process, train_all
from lightning_modules.warm import Warm

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


@pytest.fixture(params=["forked", "started"])
def start(request):
    """Both ways of starting a training."""
    with Warm(()) as warm:
        yield partial(start_process, warm=warm if request.param == "forked" else None)


@pytest.fixture
def root_of(tmp_path, monkeypatch):
    """Puts scripts in the places of train.py and eval.py."""
    monkeypatch.setattr(variants, "PRELOADED", ())

    def put(code, measuring=""):
        (tmp_path / "train.py").write_text(code)
        (tmp_path / "eval.py").write_text(measuring)
        monkeypatch.setattr(variants, "ROOT", tmp_path)
        return tmp_path

    return put


def test_a_signal_is_passed_on(root_of, start):
    folder = root_of(f"import os, signal, time\nos.kill({os.getpid()}, signal.SIGUSR1)\ntime.sleep(60)")
    before = signal.getsignal(signal.SIGUSR1)
    assert start(folder / "config.yaml") == STATUS
    assert signal.getsignal(signal.SIGUSR1) == before


def test_a_training_that_is_told_when_it_has_ended_is_the_last(root_of):
    """It passes no status on, for it was done; what would follow is not begun all the same."""
    code = "import os, signal, sys, pathlib\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    code += "pathlib.Path(sys.argv[1]).with_name('metrics.json').write_text('{}')\n"
    folder = root_of(code + f"os.kill({os.getpid()}, signal.SIGTERM)")
    with pytest.raises(PreemptedError):
        train_all(configs(folder, "a", "b"))
    assert [(folder / name).exists() for name in ("a", "b")] == [True, False]


def test_a_status_is_passed_back(root_of, start):
    folder = root_of("import sys\nsys.exit(3 if sys.argv[1].endswith('config.yaml') else 4)")
    assert start(folder / "config.yaml") == 3


def test_a_process_trains_and_another_measures(root_of, start):
    note = (
        "import os, pathlib, sys\nwith (pathlib.Path(__file__).parent / 'told').open('a') as f: print(os.getpid(), *sys.argv[1:], file=f)\n"
    )
    folder = root_of(note, note + "sys.exit(5)")
    assert start(folder / "config.yaml") == 5
    (first, *trained), (second, *measured) = (line.split() for line in (folder / "told").read_text().splitlines())
    assert trained == [str(folder / "config.yaml"), "--no-evaluation"]
    assert measured == [str(folder)]
    assert first != second


def test_what_fails_is_not_measured(root_of, start):
    folder = root_of("import sys; sys.exit(3)", "import pathlib; (pathlib.Path(__file__).parent / 'told').touch()")
    assert start(folder / "config.yaml") == 3
    assert not (folder / "told").exists()


def test_a_signal_while_it_is_measured_is_passed_on(root_of, start):
    folder = root_of("", f"import os, signal, time\nos.kill({os.getpid()}, signal.SIGTERM)\ntime.sleep(60)")
    assert start(folder / "config.yaml") == STATUS


@pytest.mark.parametrize("forks", [True, False])
def test_a_training_that_ends_has_said_all_and_is_alone(root_of, monkeypatch, capfd, forks):
    """What it leaves in its process (a variable, a module's state) does not reach the next, and what it prints is not lost."""
    monkeypatch.setattr(variants, "FORKS", forks)
    monkeypatch.setenv("LEFT", "by nobody")
    code = "import os, sys, json; assert os.environ['LEFT'] == 'by nobody' and not hasattr(json, 'left')\n"
    code += "json.left = True; os.environ['LEFT'] = 'by me'; print('>', *sys.argv[1:], end=''); print('aside', file=sys.stderr)\n"
    folder = root_of(code, "import pathlib, sys; (pathlib.Path(sys.argv[1]) / 'metrics.json').write_text('{}')")
    assert train_all(configs(folder, "a", "b")) == {}
    said = capfd.readouterr()
    assert said.out.count("> ") == 2
    assert f"> {folder / 'b' / 'config.yaml'} --no-evaluation" in said.out
    assert said.err.count("aside") == 2


def test_a_training_that_is_killed_has_failed_and_the_next_is_begun(root_of, start):
    folder = root_of("import os, signal, sys\nif 'doomed' in sys.argv[1]: os.kill(os.getpid(), signal.SIGKILL)")
    assert start(folder / "doomed" / "config.yaml") == -signal.SIGKILL
    assert start(folder / "config.yaml") == 0


def test_where_what_forks_is_killed_the_training_has_failed_and_the_next_is_begun(root_of, capfd):
    """The system kills what takes much memory, and the process that forks takes no less than the training."""
    folder = root_of("import os, signal, sys, time\nif 'doomed' in sys.argv[1]: os.kill(os.getppid(), signal.SIGKILL); time.sleep(1)")
    with Warm(()) as warm:
        assert start_process(folder / "doomed" / "config.yaml", warm) == 1
        assert "the process that starts trainings is gone" in capfd.readouterr().err
        assert start_process(folder / "config.yaml", warm) == 0


def test_where_what_forks_is_killed_between_two_it_is_started_again(root_of):
    folder = root_of("import os, pathlib; pathlib.Path(__file__).with_name('parent').write_text(str(os.getppid()))")
    with Warm(()) as warm:
        assert start_process(folder / "config.yaml", warm) == 0
        os.kill(int((folder / "parent").read_text()), signal.SIGKILL)
        _until(lambda: not _alive(int((folder / "parent").read_text())))
        assert start_process(folder / "config.yaml", warm) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_reaches_a_forked_training_from_its_first_moment(tmp_path, number):
    (tmp_path / "train.py").write_text("import time; time.sleep(60)")
    before = signal.signal(number, signal.SIG_DFL)  # who starts the tests may have it ignored, which is inherited
    try:
        with Warm(()) as warm:
            for _ in range(5):
                status = warm.run(tmp_path / "train.py", [], os.environ, lambda process: os.kill(process, number))
                assert status == -number
    finally:
        signal.signal(number, before)


def test_ctrl_c_while_libraries_are_imported_begins_nothing(tmp_path, root):
    (tmp_path / "slow.py").write_text("import time; print('importing', flush=True); time.sleep(60)")
    (tmp_path / "train.py").write_text("import pathlib; pathlib.Path(__file__).with_name('begun').touch()")
    starter = (
        "import signal, sys; from pathlib import Path; from lightning_modules.warm import Warm\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "with Warm(('slow',)) as warm:\n try: warm.run(Path(sys.argv[1]), [], {}, print)\n except KeyboardInterrupt: print('interrupted')"
    )
    command = [sys.executable, "-c", starter, str(tmp_path / "train.py")]
    path = os.pathsep.join([str(root), str(tmp_path)])
    process = subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": path}, cwd=root, start_new_session=True, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "importing\n"
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate(timeout=30)[0] == "interrupted\n"
    assert process.returncode == 0
    assert not (tmp_path / "begun").exists()


def test_what_libraries_set_in_the_environment_reaches_a_forked_training(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH", "")])))
    (tmp_path / "sets.py").write_text("import os; os.environ['SET_BY_A_LIBRARY'] = 'yes'")
    code = "import os, sys; sys.exit(int((os.environ.get('SET_BY_A_LIBRARY'), os.environ.get('GIVEN')) != ('yes', 'now')))"
    (tmp_path / "train.py").write_text(code)
    with Warm(("sets",)) as warm:
        assert warm.run(tmp_path / "train.py", [], {**os.environ, "GIVEN": "now"}, lambda process: None) == 0


def test_what_is_imported_before_a_fork_uses_no_gpu(root):
    """bitsandbytes would ask each GPU what it is."""
    code = (
        "import importlib, sys, torch; from lightning_modules.variants import PRELOADED; [importlib.import_module(n) for n in PRELOADED]; "
    )
    code += "sys.exit('bitsandbytes' in sys.modules or torch.cuda.is_initialized())"
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_ctrl_c_reaches_a_forked_training_which_ends_first(tmp_path, root):
    """As a terminal sends it: to all of the group, of which the one that forks takes no notice."""
    training = "import pathlib, time\nhere = pathlib.Path(__file__).parent\ntry: (here / 'begun').touch(); time.sleep(60)\n"
    (tmp_path / "train.py").write_text(
        training + "except KeyboardInterrupt: time.sleep(0.5); (here / 'ended').touch(); raise SystemExit(130)"
    )
    starter = (
        "import signal, sys; from pathlib import Path; from lightning_modules.warm import Warm\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # which who starts the tests may have switched off
        "with Warm(()) as warm:\n try: warm.run(Path(sys.argv[1]), [], {}, print)\n"
        " except KeyboardInterrupt: print((Path(sys.argv[1]).parent / 'ended').exists())"
    )
    command = [sys.executable, "-c", starter, str(tmp_path / "train.py")]
    process = subprocess.Popen(command, cwd=root, start_new_session=True, stdout=subprocess.PIPE, text=True)
    _until((tmp_path / "begun").exists)
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate(timeout=60)[0].split()[1:] == ["True"]


def test_a_forked_training_ends_with_who_asked_for_it(tmp_path, root):
    """Though that one was killed and could tell nobody; and so does what forked it."""
    code = "import os, time, pathlib; from lightning_modules.entry import run_entry\n"
    code += "run_entry(lambda: pathlib.Path(__file__).with_name('pids').write_text(f'{os.getpid()} {os.getppid()}') and time.sleep(60))"
    (tmp_path / "train.py").write_text(code)
    starter = "import os, sys; from pathlib import Path; from lightning_modules.warm import Warm; "
    starter += "Warm(('lightning_modules.entry',)).run(Path(sys.argv[1]), [], os.environ, print)"
    process = subprocess.Popen([sys.executable, "-c", starter, str(tmp_path / "train.py")], cwd=root, stdout=subprocess.DEVNULL)
    told = tmp_path / "pids"
    _until(lambda: told.exists() and told.read_text())
    process.kill()
    process.wait()
    for number in told.read_text().split():
        _until(lambda number=number: not _alive(int(number)))


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
