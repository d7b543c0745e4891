import os
import resource
import subprocess
import sys

import pytest

from lightning_modules.resident import resident_peak
from lightning_modules.warm import FORKS, Warm

CHILD = "from lightning_modules.resident import resident_peak; import {}; x = bytearray({}); print(resident_peak())"


def of_a_child(size, root, prefix=""):
    code = prefix + CHILD.format("json", size)
    return int(subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True).stdout)


def test_what_was_let_go_still_counts(root):
    little = of_a_child(1, root)
    assert of_a_child(200 * 2**20, root) - little > 190 * 2**20
    assert of_a_child(1, root, f"x = bytearray({200 * 2**20}); del x; ") - little > 190 * 2**20


def test_a_child_does_not_inherit_its_starters_peak(root):
    held = bytearray(300 * 2**20)
    starters = resident_peak()
    assert starters > len(held)
    assert of_a_child(1, root) < 100 * 2**20


@pytest.mark.skipif(not FORKS, reason="nothing is forked on this system")
def test_a_forked_process_counts_the_libraries_that_were_imported_for_it(root, tmp_path):
    """As if it had imported them, though it touches few of their pages."""
    (tmp_path / "told.py").write_text(
        "import sys; from pathlib import Path; import torch; from lightning_modules.resident import resident_files, resident_peak\n"
        "x = bytearray(100 * 2**20); Path(sys.argv[1]).write_text(f'{resident_peak()} {resident_files()}')"
    )
    with Warm(("torch",)) as warm:
        assert warm.run(tmp_path / "told.py", [str(tmp_path / "forked")], os.environ, lambda process: None) == 0
    path = {**os.environ, "PYTHONPATH": str(root)}
    subprocess.run([sys.executable, str(tmp_path / "told.py"), str(tmp_path / "started")], env=path, check=True)
    (forked, touched), (started, held) = (map(int, (tmp_path / name).read_text().split()) for name in ("forked", "started"))
    assert touched < 0.8 * held
    assert forked == pytest.approx(started, rel=0.1)


def test_where_the_system_does_not_say_the_process_usage_is_asked(tmp_path):
    unit = 1 if sys.platform == "darwin" else 1024
    for status in (tmp_path / "none", tmp_path / "other"):
        (tmp_path / "other").write_text("Name:\tpython\n")
        assert resident_peak(status) == resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
