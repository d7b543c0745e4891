"""python train.py <experiment> [key=value ...]: trains a scorer, measures it on held-out images, writes a report.

python train.py quickstart                                   a first run: minutes on a laptop, no GPU, no download
python train.py quickstart name=mine trainer.steps=2000      any key of the configuration can be given
python train.py benchmark_quickstart                         a list of variants, one after another, and what distinguishes them
python train.py benchmark_quickstart --plan                  what each of them would need, and which are finished
python train.py seagull_7b --plan --gpu 24                   what it would need, before anything is fetched or trained
python train.py --list                                       every plugin of every kind, with its parameters
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import itertools
import logging
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from safetensors.torch import save_file
from tqdm.auto import tqdm

from components.distillation import Terms, check_pair
from components.foundation import check_foundations, fingerprint
from components.registry import ConfigError
from components.release import release
from components.scorers.base import SCORERS, Scorer
from components.vision_encoders.base import VisionEncoder
from configs.benchmarks import benchmarks, check_name, find_benchmark, load_benchmark
from configs.listing import list_plugins
from configs.schema import Experiment, change_config, experiments, load_config, to_yaml
from datamodules.datasets.base import DATASETS, RoiDataset
from lightning_modules.entry import EntryParser, run_entry
from lightning_modules.facts import facts
from lightning_modules.fit import Remedy, cards, exhausted, remedies, told, told_variants, usable, verdict
from lightning_modules.lineage import note
from lightning_modules.optim import check_optimizer
from lightning_modules.plan import GIB, Plan, plan, without_files
from lightning_modules.runs import Run, RunError, write_json
from lightning_modules.sharing import check_sharing

if TYPE_CHECKING:
    from lightning import Trainer

    from components.scorers.mobile_iqa import MobileIQA
    from datamodules.roi_iqa import RoiIQA
    from lightning_modules.ranks import Ranks

ROOT = Path(__file__).parent
CALIBRATION_BATCHES = 12  # for `Scorer.calibrate`
DEFAULT_REGIONS = 6  # of an image, in a plan for data that do not say, or say 0 for all
SURELY = 0.9  # of what was planned, to be aimed at when that was too much


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Trains and evaluates; returns the metrics (empty for --list and --no-evaluation)."""
    parser = EntryParser(prog="train.py", description=__doc__)
    parser.add_argument("experiment", nargs="?", help=f"a file, or one of: {', '.join([*benchmarks(), *experiments()])}")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--list", action="store_true", help="print every plugin with its parameters")
    parser.add_argument("--plan", action="store_true", help="parameters, checkpoint size and predicted GPU memory; trains nothing")
    parser.add_argument(
        "--gpu", type=float, metavar="GB", help="with --plan: the card it is for, as sold; says whether it fits, and what to change if not"
    )
    parser.add_argument(
        "--no-evaluation", action="store_true", help="train only; python eval.py <run> measures it, in a process of its own"
    )
    parser.add_argument("--regions", type=int, metavar="N", help="with --plan: regions an image (default: the data's)")
    args = parser.parse_intermixed_args(argv)  # key=value may stand behind an option
    _check_plan(parser, args)
    if args.list:
        print(list_plugins())
        return {}
    if args.experiment is None:
        parser.error(f"name an experiment: {', '.join(experiments())}; or a benchmark: {', '.join(benchmarks())}")
    check_name(args.experiment)
    benchmark = find_benchmark(args.experiment)
    if args.no_evaluation and (benchmark is not None or args.plan):
        parser.error("--no-evaluation trains one experiment")
    if benchmark is not None and args.plan:
        return plan_benchmark(benchmark, args.overrides, args.gpu, args.regions)
    if benchmark is not None:
        return run_benchmark(benchmark, args.overrides)
    if args.plan:
        return plan_run(args.experiment, args.overrides, args.gpu, args.regions)
    return run(load_config(args.experiment, args.overrides), evaluate=not args.no_evaluation)


def _check_plan(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if not args.plan and (args.gpu is not None or args.regions is not None):
        parser.error("--gpu and --regions belong to --plan")
    if args.gpu is not None and not args.gpu > 0:
        parser.error(f"--gpu {args.gpu:g}: the card's memory in GB, a positive number")
    if args.regions is not None and args.regions < 1:
        parser.error(f"--regions {args.regions}: at least 1")


def plan_run(experiment: str, overrides: Sequence[str], gpu: float | None, regions: int | None) -> dict[str, Any]:
    """Prints what training would need, and returns it; reads neither weights nor data."""
    if regions is not None and "regions" in load_config(experiment, overrides).data:
        overrides = [*overrides, f"data.regions={regions}"]  # so that what is proposed is what was planned
    config = load_config(experiment, overrides)
    found, note = planned(config, regions)
    print(told(found, note) + "\n")
    if config.trainer.strategy == "fsdp":
        print("that is one of the GPUs that share it (fsdp); the blocks at work and what is outside them are gathered whole\n")
    if config.distillation.teacher:
        with torch.device("meta"):
            unready = untaught(config, SCORERS.build(config.model, where="model"))
        print("without the teacher, whose weights and forward pass come on top (distillation)" + (f"\n{unready}" if unready else "") + "\n")
    tried: list[Remedy] = []
    fits = None if gpu is None else found.training.total <= usable(gpu) * GIB
    if gpu is not None and not fits:
        tried = proposed(config, lambda more: load_config(experiment, [*overrides, *more]), found, int(usable(gpu) * GIB), regions)
    command = f"python train.py {shlex.join([experiment, *overrides])}"
    print(cards(found) if gpu is None else verdict(found, gpu, tried, command))
    return {**dataclasses.asdict(found), "fits": fits, "remedies": [dataclasses.asdict(r) for r in tried]}


def planned(config: Experiment, regions: int | None = None) -> tuple[Plan, str]:
    """What a training step of `config` needs, and what to say about how it was counted. `regions` of an image, None for the data's."""
    t = config.trainer
    check_training(config)
    shards = (t.devices if isinstance(t.devices, int) else 1) * t.nodes if t.strategy == "fsdp" else 1
    node, note = without_files(config.model)
    with torch.device("meta"):
        scorer = SCORERS.build(node, where="model")
    count = regions or config.data.get("regions") or DEFAULT_REGIONS
    images = t.max_tokens // int(scorer.row_tokens(np.array([count]), 1)[0]) if t.max_tokens else t.batch_size
    return plan(
        scorer,
        batch_size=max(1, images),
        regions=count,
        precision=t.precision,
        accumulate=t.accumulate,
        optimizer=config.optim.optimizer,
        shards=shards,
    ), note


def proposed(
    config: Experiment, changed: Callable[[Sequence[str]], Experiment], found: Plan, room: int, regions: int | None
) -> list[Remedy]:
    """What to change in `config`, which needs `found`, so that it fits `room` bytes."""
    values = dataclasses.asdict(config)
    if regions is not None:
        values["data"] = {}  # their number was given, so it is not the configuration's to change
    return remedies(values, lambda more: planned(changed(more), regions)[0], found.training.total, room)


def out_of_memory(config: Experiment, step: int, regions: int, card: int | None) -> str:
    """What to say when the GPU has had no room for a batch of images with up to `regions` regions; `card` is its size in bytes."""
    shown = None if "regions" in config.data else regions
    text = to_yaml(config)
    found, _ = planned(config, shown)
    room = min(card or found.training.total, int(SURELY * found.training.total))
    tried = proposed(config, lambda more: change_config(text, more), found, room, shown)
    return exhausted(found, tried, step, regions, card, room)


def plan_benchmark(path: Path, overrides: Sequence[str], gpu: float | None, regions: int | None) -> dict[str, Any]:
    """Prints a line for each variant, in the order in which they are trained: what it would need, and how far it is; returns the same.
    Reads neither weights nor data, and trains nothing."""
    from lightning_modules.variants import states

    benchmark, found = load_benchmark(path, overrides)
    done = states({benchmark.folder / name: to_yaml(variant) for name, variant in found.items()})
    rows: dict[str, dict[str, Any]] = {}
    for name, variant in tqdm(found.items(), desc="planning", unit="variant", leave=False, delay=2):
        try:
            needs = planned(variant, regions)[0]
        except ConfigError as error:
            raise ConfigError(f"{path.name}, variant {name}: {error}") from error
        rows[name] = {
            "parameters": sum(count for count, _ in needs.parameters.values()),
            "trainable": sum(trainable for _, trainable in needs.parameters.values()),
            "steps": variant.trainer.steps,
            "checkpoint": needs.checkpoint,
            "training": needs.training.total,
            "fits": None if gpu is None else needs.training.total <= usable(gpu) * GIB,
            "state": done[benchmark.folder / name],
        }
    print(told_variants(rows, gpu))
    return {"variants": rows}


def run_benchmark(path: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """Trains the variants of a benchmark that are not finished, and compares all that are.

    Returns:
        What the comparison found; nothing where fewer than two variants can be compared.

    Raises:
        RunError: variants have failed; the others are finished, and have been compared.
    """
    from eval import compare_runs
    from evaluation.place import check_place
    from lightning_modules.variants import train_all

    benchmark, found = load_benchmark(path, overrides)
    check_place(benchmark.folder)
    for variant in found.values():
        check_training(variant)
    failed = train_all({benchmark.folder / name: to_yaml(variant) for name, variant in found.items()})
    rows = [benchmark.folder / v.name for v in benchmark.variants if v.compared and benchmark.folder / v.name not in failed]
    absent = {folder.name: f"failed with status {status}" for folder, status in failed.items()}
    compared = compare_runs(rows, benchmark.folder, absent=absent, overwrite=True) if len(rows) > 1 else {}
    if failed:
        raise RunError(
            f"{len(failed)} of {len(found)} variants failed ({', '.join(folder.name for folder in failed)}): what they said is above, and "
            "the same command tries them again"
        )
    return compared


def run(config: Experiment, evaluate: bool = True) -> dict[str, Any]:
    """One experiment from configuration to report, or to its checkpoint. Ranks other than the first have nothing to report, and return
    nothing."""
    from eval import evaluate_run  # these take seconds, and --plan and --list answer without them
    from inference.load import choose_device, load
    from lightning_modules.ranks import devices, ranks

    folder, t = Run(Path(config.outputs) / config.name), config.trainer
    folder.check(to_yaml(config))
    device, sharded = choose_device(t.accelerator), t.strategy == "fsdp"
    check_optimizer(config.optim.optimizer, device)
    check_training(config)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # its tips; warnings and errors pass
    if t.threads:
        torch.set_num_threads(t.threads)
    cuda = device.type == "cuda"
    with ranks(devices(t.devices, cuda), t.nodes, cuda=cuda, group=sharded, experiment=to_yaml(config)) as team:
        if cuda:
            device = torch.device("cuda", team.local)
        with tiny_as_zero():
            scorer, data = fit(config, folder, team, device)
    if not team.first:
        return {}
    if sharded and (evaluate or config.save_vision_encoder):
        data.trainer = None  # which holds the optimizer's shards
        release(scorer)
        scorer = load(folder.folder, device)  # whole
    if config.save_vision_encoder:
        save_vision_encoder(scorer, folder.folder / "vision_encoder.safetensors")
    return evaluate_run(folder, config, scorer, data, device) if evaluate else {}


@contextmanager
def tiny_as_zero() -> Iterator[None]:
    """Numbers below 1.2e-38 count as zero on the CPU, which takes many times as long for them. Attention without a scale makes plenty: a
    training of MobileIQA slows down as its softmax sharpens. No other number changes by more than that.

    It is a setting of this thread and of those that it starts from now on, PyTorch's own among them where they have not worked yet.
    """
    before = float(torch.tensor(1e-39) * 1) == 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def fit(config: Experiment, folder: Run, team: Ranks, device: torch.device) -> tuple[Scorer, RoiIQA]:
    """Trains as one of the ranks, from the checkpoint where there is one; returns the scorer and its data."""
    import lightning as L

    from datamodules.roi_iqa import RoiIQA
    from lightning_modules.distillation import DistillationModule
    from lightning_modules.scorer import ScorerModule

    say = print if team.first else _say_nothing
    t, o = config.trainer, config.optim
    L.seed_everything(config.seed, workers=True, verbose=False)
    scorer = SCORERS.build(config.model, where="model")
    teacher = teacher_of(config, scorer)
    resume = resumed(folder, team)
    start = started(scorer, config.start_from) if config.start_from and not resume else None
    dataset = DATASETS.build(config.data, where="data")
    check_pairs(scorer, dataset)
    data = RoiIQA(
        dataset,
        scorer.preprocess,
        scorer.crop_size,
        batch_size=t.batch_size,
        steps=t.steps,
        seed=config.seed,
        workers=t.workers,
        max_tokens=t.max_tokens,
        row_tokens=scorer.row_tokens,
    )
    options: dict[str, Any] = {
        "steps": t.steps,
        "seed": config.seed,
        "lr": o.lr,
        "lr_scale": o.lr_scale,
        "weight_decay": o.weight_decay,
        "betas": (o.beta1, o.beta2),
        "warmup": o.warmup,
        "final": o.final,
        "optimizer": o.optimizer,
    }
    if teacher is None:
        module = ScorerModule(scorer, **options)
    else:
        module = DistillationModule(cast("MobileIQA", scorer), teacher, _terms(config), **options)
    if config.save_vision_encoder:
        vision_encoder(scorer)
    if t.cache_features == "disk":
        data.features_folder("")  # before weights are read: is there one?
    team.in_turn(data.prepare_data)  # its mistakes come before the weights
    say(describe(scorer))
    home = torch.device("cpu") if t.strategy == "fsdp" else device  # what is sharded moves shard by shard
    with home:  # quantised weights are made where they will be used
        module.configure_model()
    if start is not None:
        start()
    scorer.to(home)
    if start is None and not resume:
        scorer.calibrate(itertools.islice(data.loader("train"), CALIBRATION_BATCHES))
    if t.cache_features != "off" and scorer.can_precompute:
        _keep_features(t.cache_features, scorer, data, team, device)
    elif t.cache_features != "off":
        say(f"trainer.cache_features: {type(scorer).__name__} has no frozen encoder to keep features of; images are encoded each time")
    if team.first:
        _begin(config, folder, scorer, data, device, teacher)
    team.wait()
    conductor = trainer(config, folder, team)
    try:
        conductor.fit(module, data, ckpt_path=folder.checkpoint if resume else None, weights_only=True)
    except torch.OutOfMemoryError as error:
        card = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None
        raise RunError(out_of_memory(config, conductor.global_step, module.regions, card)) from error
    return scorer, data


def resumed(folder: Run, team: Ranks) -> bool:
    """Whether the ranks go on from the checkpoint: rank 0 decides, for a disk may show it to one machine later than to another.

    Raises:
        RunError: on every rank, where one of them does not see the checkpoint.
    """
    resume = team.agree(folder.resumable())
    blind = team.most(team.rank + 1 if resume and not folder.checkpoint.exists() else 0) - 1
    if blind >= 0:
        raise RunError(
            f"rank {blind} does not see {folder.checkpoint}, from which rank 0 would go on: outputs/ must be on a disk that all machines "
            "see; where it is, start again once that machine sees the file"
        )
    return resume


def _keep_features(where: str, scorer: Scorer, data: RoiIQA, team: Ranks, device: torch.device) -> None:
    from datamodules.features import fingerprint

    encoder = vision_encoder(scorer)
    home = next(encoder.parameters()).device  # the CPU, where the scorer is to be sharded
    encoder.to(device)
    if where == "memory":
        data.remember(scorer.precompute)
    else:
        key = fingerprint(encoder, encoder.preprocess, data.dataset.describe())
        if team.world > 1:
            data.keep(scorer.precompute, key, (team.rank, team.world))
            team.wait()
        team.in_turn(lambda: data.keep(scorer.precompute, key))  # nothing is missing where the ranks share a disk
    encoder.to(home)


def started(scorer: Scorer, model: str) -> Callable[[], None]:
    """Checks that what was trained in `model` is exactly what `scorer` trains, before any weight is read; returns what puts it there, to
    be called when they have been.

    Raises:
        ConfigError: no such model, tensors that are missing, unexpected or of another shape, or other frozen weights below them.
    """
    from inference.load import trained

    try:
        state, foundations = trained(model)
        scorer.check_trained(state)
    except FileNotFoundError as error:
        known = Path(model).name in experiments()
        hint = f". Train it first, with the model's changes that are given here: {_command(Path(model))}" if known else ""
        raise ConfigError(f"start_from: {model} cannot be gone on from: {error}{hint}") from error
    except ValueError as error:
        raise ConfigError(f"start_from: {model} cannot be gone on from: {error}{_other_levels(scorer, model)}") from error

    def put() -> None:
        if foundations is not None:
            check_foundations(foundations, scorer.foundations(), f"start_from: {model}")
        scorer.load_trained(state)

    return put


def _other_levels(scorer: Scorer, model: str) -> str:
    """How the vision encoder of a model differs from that of `scorer`; "" where it gives the same."""
    from inference.load import described

    with torch.device("meta"):
        other = SCORERS.build(described(model), where="start_from")
    here, there = (found.told() if isinstance(found := s.parts().get("vision_encoder"), VisionEncoder) else "" for s in (scorer, other))
    return "" if here == there else f". The vision encoder gives {there} there, and {here} here"


def _command(run: Path) -> str:
    """What makes the run of an experiment."""
    return f"python train.py {run.name}" + (f" outputs={run.parent}" if run.parent != Path("outputs") else "")


def teacher_of(config: Experiment, scorer: Scorer) -> MobileIQA | None:
    """The trained model that `scorer` is to learn from, on the CPU; None where there is none. Whether it fits is seen before its weights
    are read.

    Raises:
        ConfigError: no such model, one that is not finished, or one that cannot teach this scorer.
    """
    from inference.load import load

    folder = config.distillation.teacher
    if not folder:
        return None
    if unready := untaught(config, scorer):
        raise ConfigError(f"{unready}. Or leave it empty (distillation.teacher=) to learn from the labels alone")
    try:
        return cast("MobileIQA", load(folder))
    except FileNotFoundError as error:
        raise ConfigError(f"distillation.teacher: {error}") from error


def untaught(config: Experiment, scorer: Scorer) -> str:
    """What must be trained before `scorer` can learn from the teacher of `config`, and where the experiment of that name would make one
    that cannot teach it, why; "" where the teacher is there. Reads no weights.

    Raises:
        ConfigError: the teacher is there, and cannot teach this scorer.
    """
    from inference.load import described

    folder = Path(config.distillation.teacher)
    if config.trainer.strategy == "fsdp":
        raise ConfigError("distillation with trainer.strategy fsdp: only the student would be divided, not the teacher. Use ddp")
    try:
        node = described(folder)
    except FileNotFoundError as error:
        unready = f"distillation.teacher: {error}. Train it first"
        if folder.name not in experiments():
            return unready
        command = _command(folder)
        if misfit := _misfit(scorer, load_config(folder.name).model):
            return f"{unready}; as {command} makes it, it could not teach this student: {misfit}"
        return f"{unready}: {command}"
    if misfit := _misfit(scorer, node):
        raise ConfigError(f"{folder} cannot teach this student: {misfit}")
    if Run(folder).resumable():
        return f"distillation.teacher: {folder} is a run that has not ended: finish it first, with the command that began it"
    return ""


def _misfit(scorer: Scorer, teacher: Mapping[str, Any]) -> str:
    """Why the model of a plugin node cannot teach `scorer`; "" where it can."""
    try:
        with torch.device("meta"):
            check_pair(scorer, SCORERS.build(teacher, where="distillation.teacher"))
    except ConfigError as error:
        return str(error)
    return ""


def _terms(config: Experiment) -> Terms:
    d = config.distillation
    return Terms(d.score, d.levels, d.opinions)


def check_training(config: Experiment) -> None:
    """Refuses what can be configured and cannot be trained, before data or weights are read.

    Raises:
        ConfigError: data that are for the test alone, or what `check_sharing` refuses.
    """
    t = config.trainer
    check_sharing(t.strategy, t.precision, config.model, config.optim.optimizer)
    _check_only_test(DATASETS.part(config.data, "data").settings(), "data")


def _check_only_test(data: Mapping[str, Any], where: str) -> None:
    """Of the settings of a data set, and of those inside it."""
    if data.get("only_test"):
        raise ConfigError(
            f"{where}.only_test: got {data['only_test']}, in a training: it makes a test image of every image, so that none is left to "
            "train on, and is for measuring a trained model on data without splits (python eval.py outputs/a --on "
            f"{where}.root=... {where}.only_test=true --out ...). To train on these data leave it out, or set it to false"
        )
    for name, value in data.items():
        if isinstance(value, Mapping):
            _check_only_test(value, f"{where}.{name}")


def check_pairs(scorer: Scorer, dataset: RoiDataset) -> None:
    """Raises ConfigError where training reads clean images and the data have none."""
    if scorer.needs_clean and not dataset.pairs:
        raise ConfigError(
            f"data: {type(scorer).__name__} learns here from pairs of a distorted and a clean image, and these data give no clean ones: "
            "set pairs to true, which the data set photographs has"
        )


def _begin(config: Experiment, folder: Run, scorer: Scorer, data: RoiIQA, device: torch.device, teacher: Scorer | None) -> None:
    from inference.saved import check_preprocess

    record = {**facts(ROOT, device), "seed": config.seed, "preprocess": scorer.preprocess.told(), "data": data.dataset.describe()}
    record |= {"config": hashlib.sha256(to_yaml(config).encode()).hexdigest()[:16], "parts": sizes(scorer)}
    if scorer.licence:
        record["licence"] = scorer.licence
    if teacher is not None:
        record["teacher"] = {"model": config.distillation.teacher, "weights": fingerprint(teacher.state_dict())}
    if below := note(dataclasses.asdict(config)):
        record["stands_on"] = below
    folder.check_data(record["data"])
    if folder.resumable():
        check_preprocess(folder.record, scorer)
    if folder.begin(to_yaml(config)) is None:  # only now: what cannot start leaves an older run as it is
        write_json(folder.record, record)


def _say_nothing(text: str) -> None:
    pass


def trainer(config: Experiment, folder: Run, team: Ranks) -> Trainer:
    """The Lightning trainer of a configuration: one epoch of `steps` steps, so that a step number is a place in the data."""
    from lightning import Trainer
    from lightning.pytorch.callbacks import LearningRateMonitor
    from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

    from lightning_modules.callbacks import RecordMemory, StopAtNonFinite, WarnWithoutGradient
    from lightning_modules.progress import Progress
    from lightning_modules.saving import Saving
    from lightning_modules.strategy import AtomicIO, strategy

    t = config.trainer
    validate = min(t.val_every, t.steps)
    conductor = Trainer(
        accelerator=t.accelerator,
        devices=team.world // t.nodes,
        num_nodes=t.nodes,
        strategy=strategy(t.strategy, team.world),
        plugins=[team.environment, AtomicIO()],
        use_distributed_sampler=False,  # the data module shares them out
        precision=t.precision,
        max_epochs=1,
        accumulate_grad_batches=t.accumulate,
        gradient_clip_val=t.clip or None,
        val_check_interval=validate * t.accumulate,
        log_every_n_steps=t.log_every,
        num_sanity_val_steps=0,
        deterministic="warn",
        enable_model_summary=False,
        enable_checkpointing=False,  # Lightning's; `Saving` does it
        logger=[
            CSVLogger(folder.folder / "logs", "csv", flush_logs_every_n_steps=t.log_every),  # a folder for each attempt
            TensorBoardLogger(folder.folder, "logs", "tensorboard"),
        ],
        callbacks=[
            Saving(folder.checkpoint, t.save_every, team),
            LearningRateMonitor("step"),
            Progress(refresh_rate=5),
            StopAtNonFinite(folder.folder),
            WarnWithoutGradient(),
            RecordMemory(folder, lambda: planned(config)[0]),
        ],
    )
    # else PyTorch fills each new tensor with NaN before a kernel writes its result there
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return conductor


def save_vision_encoder(scorer: Scorer, path: Path) -> None:
    """Writes the part `vision_encoder` in half precision, as the plugin reads it back (`weights: <path>`)."""
    module = vision_encoder(scorer).weights_module()
    halved = {name for name, _ in module.named_parameters()}  # statistics keep their range
    state = {k: (v.half() if k in halved else v).contiguous() for k, v in module.state_dict().items()}
    draft = path.with_name(f".{path.name}")
    save_file(state, draft)
    draft.replace(path)


def vision_encoder(scorer: Scorer) -> VisionEncoder:
    """The scorer's vision encoder. Raises ConfigError where it has none to save."""
    encoder = scorer.parts().get("vision_encoder")
    if not isinstance(encoder, VisionEncoder):
        raise ConfigError(f"save_vision_encoder: {type(scorer).__name__} has no vision encoder")
    return encoder


def describe(scorer: Scorer) -> str:
    """What is trained and what is frozen, part by part."""
    rows = [f"{name:<20}{size['parameters']:>14,}{size['trainable']:>14,}" for name, size in sizes(scorer).items()]
    encoder = scorer.parts().get("vision_encoder")
    levels = [f"vision encoder: {encoder.told()}"] if isinstance(encoder, VisionEncoder) else []
    return "\n".join([f"{'part':<20}{'parameters':>14}{'trainable':>14}", *rows, *levels])


def sizes(scorer: Scorer) -> dict[str, dict[str, int]]:
    """Part -> how many numbers it has, and how many of them are trained: of what works beside the parts, none."""
    found = {
        name: {
            "parameters": sum(p.numel() for p in part.parameters()),
            "trainable": sum(p.numel() for p in part.parameters() if p.requires_grad),
        }
        for name, part in scorer.parts().items()
    }
    return found | {n: {"parameters": sum(p.numel() for p in m.parameters()), "trainable": 0} for n, m in scorer.beside().items()}


if __name__ == "__main__":
    run_entry(main)
