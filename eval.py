"""python eval.py outputs/<name>: measures a trained run again, from its checkpoint, and rewrites its metrics and report.

python eval.py outputs/a outputs/b theirs.csv --out outputs/comparison: compares runs that were measured, and other people's predictions
(image, region, score), on the same regions.

python eval.py outputs/a --on data.root=photographs --out outputs/a_on_photographs: measures a run on other test data, on all of them where
they name no splits and hold nothing that it was trained on; compared with other runs, it gives a table of models by data sets.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import pandas as pd
import torch
from tqdm.auto import tqdm

from components.registry import ConfigError
from components.scorers.base import Scorer
from configs.schema import Experiment, load_config, to_yaml
from datamodules.datasets.base import DATASETS, Samples
from datamodules.roi_iqa import RoiIQA
from evaluation.across import by_data, columns, compare_across, labelled, notes
from evaluation.bootstrap import UNTESTED_SOURCES
from evaluation.comparison import compare
from evaluation.differences import untested
from evaluation.entries import Entry, is_predictions, read_csv, read_run, require
from evaluation.names import tell_apart
from evaluation.place import ACROSS, COMPARISON, check_place, made_of, remove
from evaluation.protocols import SCORES, evaluate
from evaluation.ranking import COST, HEADLINE, LEGEND, console, explained
from evaluation.report import Images, console_table, write_report
from evaluation.splits import read_splits
from inference.load import choose_device, load
from inference.stopwatch import Stopwatch
from inference.table import score_table
from lightning_modules.callbacks import peak
from lightning_modules.entry import EntryParser, run_entry
from lightning_modules.facts import facts
from lightning_modules.lineage import stands_on
from lightning_modules.runs import Run, write_json, write_text


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Evaluates a run folder, or compares several; returns the metrics, or the comparison."""
    parser = EntryParser(prog="eval.py", description=__doc__)
    parser.add_argument("run", type=Path, nargs="+", help="a run's folder, as train.py made it; several, or a CSV beside them: compare")
    parser.add_argument("--out", type=Path, help="where a comparison, or a measurement on other data, goes; outputs/comparison if not said")
    parser.add_argument("--on", nargs="+", metavar="data.KEY=VALUE", help="other test data, as overrides of the run's configuration")
    parser.add_argument(
        "--splits", type=Path, help="a comparison's splits.json, to hold out the same sources; ten random halves if not said"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace another comparison that --out holds")
    parser.add_argument("--accelerator", choices=("auto", "cpu", "gpu"), help="instead of the run's own")
    args = parser.parse_args(argv)
    if args.on and (len(args.run) > 1 or not args.out):
        parser.error("--on measures one run on other data, and needs --out for what it writes")
    if len(args.run) > 1 and args.accelerator:
        parser.error("--accelerator is for measuring one run: a comparison reads what was measured")
    if len(args.run) > 1:
        return compare_runs(args.run, args.out or Path("outputs/comparison"), splits=args.splits, overwrite=args.overwrite)
    if (args.out and not args.on) or args.splits or args.overwrite or is_predictions(args.run[0]):
        parser.error("--out, --splits, --overwrite and a CSV belong to a comparison: give at least two entries, one of them a run")
    require(args.run[0])
    folder = Run(args.run[0])
    folder.require_checkpoint()
    config = _on_other_data(folder, args.on) if args.on else load_config(str(folder.config))
    into = _elsewhere(folder, config, args.out) if args.on else folder
    if config.trainer.threads:
        torch.set_num_threads(config.trainer.threads)
    L.seed_everything(config.seed, workers=True, verbose=False)
    device = choose_device(args.accelerator or config.trainer.accelerator)
    scorer = load(folder.folder, device)
    data = RoiIQA(DATASETS.build(config.data, where="data"), scorer.preprocess, scorer.crop_size, batch_size=1, steps=1, seed=config.seed)
    data.prepare_data()
    return evaluate_run(into, config, scorer, data, device, alone=True)


def _on_other_data(run: Run, overrides: Sequence[str]) -> Experiment:
    """A run's configuration with other data; where these name no splits and the run has seen none of them, every image is tested. Says so.

    Raises:
        ConfigError: an override that is not of the data, or test images that the run was trained on.
    """
    other = [o for o in overrides if not o.startswith("data.")]
    if other:
        raise ConfigError(f"--on {other[0]}: only data can be another when a run is measured, as in data.root=path/to/photographs")
    config = load_config(str(run.config), overrides)
    data, seen = DATASETS.build(config.data, where="data"), _seen(run.folder)
    options = [f"data.{key}={json.dumps(value)}" for key, value in data.only_tested().items()]
    options = [o for o in options if not any(given.startswith(o.partition("=")[0] + "=") for given in overrides)]
    reason = "what it was trained on is not here as it was" if seen is None else "they do not tell their pictures apart"
    unsure = f"whether {run.folder} has seen any of them cannot be told, for {reason}"
    if options:
        whole = load_config(str(run.config), [*overrides, *options])
        asked = DATASETS.build(whole.data, where="data").pictures("test")
        if seen is not None and asked is not None and not asked & seen:
            print(
                f"note: all of these data are tested, for they name no splits and {run.folder} has seen none of them: {' '.join(options)}"
            )
            return whole
        why = unsure if seen is None or asked is None else f"{run.folder} was trained on some of them"
        print(f"note: these data name no splits, and {why}: tested are those that training holds out; all with {' '.join(options)}")
        if seen is None:
            return config
    tested = data.pictures("test")
    if seen is None or tested is None:
        print(f"note: of the data that are tested now, {unsure}")
    elif common := sorted(tested & seen):
        raise ConfigError(
            f"--on: {run.folder} was trained, or its checkpoint chosen, on pictures that would be tested, {common[0]} among them: measured "
            "on these it would look better than it is. Take other data, or the seed and the shares of its own; `python prepare.py validate "
            "--apart` finds pictures that two data sets share"
        )
    return config


def _seen(folder: Path) -> set[str] | None:
    """The pictures that a run, and the runs that it stands on, were trained and chosen on; None where they are not here as they were."""
    run = Run(folder)
    try:
        config = load_config(str(run.config))
        dataset = DATASETS.build(config.data, where="data")
        found = [dataset.pictures("train"), dataset.pictures("val")]
        if json.loads(json.dumps(dataset.describe())) != json.loads(run.record.read_text())["data"]:
            return None
        found += [_seen(Path(below)) for below in stands_on(dataclasses.asdict(config))]
    except (OSError, ValueError, KeyError, ImportError):
        return None
    known = [pictures for pictures in found if pictures is not None]
    return set().union(*known) if len(known) == len(found) else None


def _elsewhere(run: Run, config: Experiment, out: Path) -> Run:
    """The folder for a run's measurement on other data, with what the run recorded of its training.

    Raises:
        RunError: the folder is in the way.
    """
    into = Run(out)
    into.check(to_yaml(config))
    out.mkdir(parents=True, exist_ok=True)
    write_text(into.config, to_yaml(config))
    write_json(
        into.record, {**json.loads(run.record.read_text()), "evaluation": {}, "measured_from": "/".join(run.folder.resolve().parts[-2:])}
    )
    return into


def compare_runs(
    folders: Sequence[Path],
    out: Path,
    draws: int = 1000,
    splits: Path | None = None,
    absent: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Compares measured runs, and CSV files of other people's predictions, on the same regions; writes `out`, prints the table.

    Args:
        absent: see `compare`.
        overwrite: whether a comparison of other entries, or with other splits, that `out` holds may be replaced.

    Raises:
        FileExistsError: as `evaluation.place.check_place`.
        FileNotFoundError: one of `folders`, or `splits`, does not exist.
        ValueError: fewer than two entries, no run among them, such that `evaluation.entries` refuses, or splits of other data.
    """
    runs = [p for p in folders if not is_predictions(p)]
    for path in folders:
        require(path)
    if not runs:
        raise ValueError(f"none of {[str(p) for p in folders]} is a run's folder: labels and regions are read from one")
    places = [p.resolve() for p in folders]
    if twice := [str(p) for n, p in enumerate(folders) if places[n] in places[:n]]:
        raise ValueError(f"{twice[0]} is given twice: each run or file is compared once")
    given = read_splits(splits) if splits else None
    asked = made_of(folders, given, out)
    check_place(out, asked, overwrite)
    groups = by_data([read_run(p) for p in runs])
    known = {name: pd.concat([e.table for e in own]).drop_duplicates("id") for name, own in groups.items()}
    for path in (p for p in folders if is_predictions(p)):
        for name, entry in read_csv(path, known).items():
            groups[name].append(entry)
    for name, reason in (absent or {}).items():
        print(f"missing: {name} ({reason})")
    images, missing = _kept_pictures(runs[0])
    if len(groups) > 1:
        if splits:
            raise ValueError(f"{splits} are splits of one data set, and the entries were measured on {len(groups)}: {', '.join(groups)}")
        return _compare_data(groups, out, images, draws, absent, asked)
    (entries,) = tell_apart(groups).values()
    result = compare(entries, out, images, draws, splits=given, absent=absent, made_of=asked)
    remove(out, ACROSS)
    for shown in (HEADLINE, COST):
        print(console(result["models"], shown), end="\n\n")
    print(LEGEND)
    judged = ", ".join(f"{task} {count:,}" for task, count in result["judged"].items())
    print(f"{result['regions']:,} regions; judged are those that every model answered that was asked: {judged}")
    if not result["same_data"]:
        print("note: the runs describe different data; the labels of the regions compared are the same")
    for note in [*result["notes"], *explained(result["models"], SCORES)]:
        print(f"note: {note}")
    if untested(result["differences"]):
        print(f"note: fewer than {UNTESTED_SOURCES} sources, so differences have no p-value")
    if images is None:
        print(f"note: no gallery of disagreements, {missing}")
    print(f"all tables: {out / 'comparison.md'}\nreport: {out / 'report.html'}")
    return result


def _compare_data(
    groups: dict[str, list[Entry]],
    out: Path,
    images: Images | None,
    draws: int,
    absent: Mapping[str, str] | None,
    asked: Mapping[str, Any],
) -> dict[str, Any]:
    """Entries on several data sets: a table of models by data sets."""
    result = compare_across(groups, out, images, draws, absent, asked)
    remove(out, COMPARISON)
    rows = labelled(result)
    for title, found in columns(result).items():
        print(f"{title}\n{console(rows, found)}\n")
    print(LEGEND)
    for note in notes({**result, "absent": {}}):  # who is missing was said
        print(f"note: {note}")
    print(f"note: the entries were measured on {len(groups)} data sets, so each stands in the column of its own")
    print(f"table: {out / 'across.md'}")
    return result


def evaluate_run(
    folder: Run, config: Experiment, scorer: Scorer, data: RoiIQA, device: torch.device, alone: bool = False
) -> dict[str, Any]:
    """Scores the test split on `device`, writes all files of the report, adds to run.json, prints the table.

    Args:
        alone: this process has not trained, so that the peak of its memory is that of scoring; else a CPU's is not recorded.
    """
    data.eval_batch_size = config.evaluation.batch_size
    samples = data.dataset.split("test")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    watch = Stopwatch()
    table = score_table(scorer.to(device), samples, data.loader("test"), data.loader("test", whole=True), device, watch)
    cost = {"ms_per_region": _rounded(watch.ms_per_region), "peak_gib": None}
    if alone or device.type == "cuda":
        cost["peak_gib"] = _rounded(max(peak(device).values()))
    metrics = evaluate(table)
    trained = json.loads(folder.record.read_text()) if folder.record.exists() else {}
    described = json.loads(json.dumps(data.dataset.describe()))
    if "data" in trained and trained["data"] != described:
        print("note: the data made now are not those that this run was trained on; run.json describes both")
    record = {**trained, "evaluation": {**facts(Path(__file__).parent, device), **cost, "data": described}}
    table.to_parquet(folder.scores)
    write_json(folder.record, record)
    write_report(folder.folder, table, metrics, folder.curves(), _Pictures(samples), record, to_yaml(config))
    write_json(folder.metrics, metrics)
    print(console_table(metrics))
    print(f"report: {folder.folder / 'report.html'}")
    return metrics


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 3)


def _kept_pictures(run: Path) -> tuple[_Pictures | None, str]:
    """The pictures that a run was measured on, where they are still on disk, or why there are none: six are not worth making a data set."""
    folder = Run(run)
    try:
        dataset = DATASETS.build(load_config(str(folder.config)).data, where="data")
        told = json.loads(folder.record.read_text())
        samples = dataset.kept("test", told.get("evaluation", {}).get("data") or told["data"])
    except (OSError, ValueError, KeyError, ImportError) as error:
        return None, f"since the data of {run} cannot be read: {error}"
    if samples is not None:
        return _Pictures(samples), ""
    if dataset.cache is None:
        return None, f"since the data of {run} have no cache"
    return (
        None,
        f"since {dataset.cache.resolve()} has not the test images that {run} was measured on: python eval.py {run} makes them again",
    )


class _Pictures:
    """Region id -> its image (H, W, 3) uint8 and its mask (H, W) bool; KeyError for one of other samples."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples
        looked = tqdm(range(len(samples)), unit="image", desc="finding regions", delay=2)
        self.place = {r.id: (i, n) for i in looked for n, r in enumerate(samples[i].record.regions)}

    def __call__(self, region: str) -> tuple[Any, Any]:
        image, number = self.place[region]
        sample = self.samples[image]
        return sample.image.permute(1, 2, 0).numpy(), sample.masks()[number].numpy()


if __name__ == "__main__":
    run_entry(main)
