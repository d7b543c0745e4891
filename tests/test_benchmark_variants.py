"""Every variant of every benchmark is trained for two steps and gives scores; the report compares those that are to be compared."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import eval as evaluation_entry
import train
from components.scorers.base import SCORERS
from configs.benchmarks import benchmarks, find_benchmark, load_benchmark
from lightning_modules import variants

SMALL = [
    "trainer.steps=2",
    "trainer.batch_size=2",
    "trainer.val_every=2",
    "trainer.save_every=2",
    "trainer.threads=1",
    "data.train=4",
    "data.val=1",
    "data.test=3",
    "data.size=64",
    "data.regions=2",
    "model.vision_encoder.image_size=64",
]
LOADED = {name: load_benchmark(find_benchmark(name)) for name in benchmarks()}
VARIANTS = [(name, variant) for name, (_, found) in LOADED.items() for variant in found]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, few_pictures):
    """Name of a benchmark -> its folder, and what the comparison found. In this process, since each of its own takes seconds to begin, and
    without a page of each variant, which takes seconds, too, and is that of any run."""
    folder, found = tmp_path_factory.mktemp("benchmarks"), {}
    with pytest.MonkeyPatch.context() as here:
        here.setattr(variants, "start_process", lambda config, warm: int(train.main([str(config)]) == {}))
        here.setattr(evaluation_entry, "write_report", lambda *_: None)
        for name in benchmarks():
            found[name] = folder / name, train.main([name, f"outputs={folder}", f"data.cache={folder / 'cache'}", *SMALL])
    return found


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_a_variant_trains_and_scores(trained, name, variant):
    """Each of its questions has an answer for every region of the test images, and not the same for all of them; but where the encoder is
    new, two steps leave the statistics of its batch norms unsettled, and scores at a bound."""
    folder = trained[name][0] / variant
    config = LOADED[name][1][variant]
    losses = pd.read_csv(folder / "logs" / "curves.csv")
    assert np.isfinite(losses["val/loss"].dropna()).all()
    assert len(losses["val/loss"].dropna()) == 1
    scores = pd.read_parquet(folder / "scores.parquet")
    tasks = [task for task in SCORERS.get(config.model["plugin"]).tasks if task != "distortion"]
    assert "quality" in tasks
    for task in tasks:
        said = scores[f"{task}_pred"]
        assert said.between(0, 1).all(), (variant, task)
        assert said.nunique() > 1 or not config.model["vision_encoder"].get("weights"), (variant, task)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["n_regions"] == metrics["quality"]["n"] == len(scores) > 2


@pytest.mark.parametrize("name", benchmarks())
def test_all_that_are_compared_are_rows(trained, name):
    folder, _ = trained[name]
    compared = [v.name for v in LOADED[name][0].variants if v.compared]
    page = Path(folder / "report.html").read_text()
    assert [v for v in compared if v not in page] == []
    rows = pd.read_csv(folder / "comparison.csv")
    assert set(compared) <= set(rows.iloc[:, 0])
