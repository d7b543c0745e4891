"""Labelled data from a folder of photographs, as a job in shards: `python prepare.py synthesize`.

A folder of data holds `part-*.parquet` (`datamodules.tables`), where asked for `images/` and `references/`, and `data.json`, which is
written last and says what the data is. `plan.json` is written first: what the job was begun with; it can only be continued with the same.
`.job/` holds a receipt for each shard, which is written before its part gets its name.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from components.mask_encoders.base import MASK_ENCODERS, MaskEncoder
from components.registry import ConfigError, Part
from datamodules import raw
from datamodules.alone import LOCK, alone
from datamodules.distortions.base import DISTORTIONS
from datamodules.engines.base import ENGINES, Engine
from datamodules.making import identity, make_all, write_json
from datamodules.quality_labels.base import QUALITY_LABELS, QualityLabel
from datamodules.references import find_files, find_references, other_files
from datamodules.synthesis import Recipe
from datamodules.synthesis_shards import Shards
from datamodules.tables import VERSION as SCHEMA_VERSION

VERSION = "1"  # changes whenever the same recipe would give other data
PLAN, DATA = "plan.json", "data.json"
PARTS = ("mask_encoder", "quality_label", "engine")  # the options that are plugins
LIBRARIES = ("numpy", "scipy", "scikit-image", "pillow", "pyarrow", "torch")  # that what is made depends on
Mode = Literal["seagull_100w", "mixed"]
OF_MODE: dict[Mode, tuple[str, ...]] = {
    "seagull_100w": ("objects", "components"),
    "mixed": ("images", "mixed", "clean", "regions", "several"),
}


class Synthesis:
    """What data is made, and how. The options are the recipe, except `engine`, which the data does not depend on.

    Args:
        photographs: folder of clean photographs, RAW files among them.
        out: folder of the data, new or begun with the same options.
        mode: "seagull_100w" distorts each photograph with each type and setting, all over, and labels the same regions each time; "mixed"
            draws what happens to each image and region, see `datamodules.synthesis.Recipe`.
        images: how many, in mode mixed; 0 for one of each photograph. Photographs take turns.
        seed: of everything drawn.
        size: shorter side, pixels; larger photographs are reduced to it, 0 leaves all as they are.
        distortions: the types.
        mask_encoder: proposes regions; the default is superpixel.
        quality_label: judges regions; the default is local_similarity.
        objects, components: regions asked for in mode seagull_100w, see `datamodules.proposals`.
        mixed, clean, regions, several: of mode mixed, see `datamodules.synthesis.Recipe`.
        min_area, visible, full_impact: see there.
        store: where the images are: in the table, or as PNG files beside it.
        references: writes the clean images beside the table too, as `references/*.png`.
        val, test: shares of the scenes.
        engine: where the shards are made; the default is processes.

    Raises:
        ConfigError: an option out of its range, or one that the mode does not know.
    """

    def __init__(
        self,
        photographs: Path,
        out: Path,
        *,
        mode: Mode = "seagull_100w",
        images: int = 0,
        seed: int = 0,
        size: int = 512,
        distortions: tuple[str, ...] = ("blur", "colorfulness", "compression", "contrast", "exposure", "noise"),
        mask_encoder: Part[MaskEncoder] | None = None,
        quality_label: Part[QualityLabel] | None = None,
        objects: int = 10,
        components: int = 24,
        mixed: float = 0.6,
        clean: float = 0.1,
        regions: int = 6,
        several: int = 1,
        min_area: float = 0.015,
        visible: float = 0.97,
        full_impact: float = 0.25,
        store: Literal["embedded", "beside"] = "embedded",
        references: bool = True,
        val: float = 0.1,
        test: float = 0.2,
        engine: Part[Engine] | None = None,
    ) -> None:
        for name, value, allowed, good in (
            ("images", images, "a number of images, 0 for one of each photograph", images >= 0),
            ("size", size, "a number of pixels, at least 32, or 0 for the photographs' own", size == 0 or size >= 32),
            ("distortions", distortions, "one type at least, each named once", 0 < len(set(distortions)) == len(distortions)),
            (
                "objects and components",
                (objects, components),
                "numbers of regions, one at least",
                min(objects, components) >= 0 < objects + components,
            ),
            ("val and test", (val, test), "shares that leave some to train", min(val, test) >= 0 and val + test < 1),
        ):
            if not good:
                raise ConfigError(f"synthesize: {name}: {allowed}; got {value}")
        given = {"images": images, "mixed": mixed, "clean": clean, "regions": regions, "several": several}
        given |= {"objects": objects, "components": components}
        for name in OF_MODE["mixed" if mode == "seagull_100w" else "seagull_100w"]:
            if given[name] != inspect.signature(type(self)).parameters[name].default:
                raise ConfigError(
                    f"synthesize: {name}={given[name]} is not for mode={mode}, whose own options are {', '.join(OF_MODE[mode])}: "
                    f"change the mode, or leave {name} out"
                )
        mask_encoder = mask_encoder or MASK_ENCODERS.part({"plugin": "superpixel"})
        quality_label = quality_label or QUALITY_LABELS.part({"plugin": "local_similarity"})
        if not mask_encoder.cls.can_propose and (mode == "mixed" or objects):
            raise ConfigError(f"synthesize: {mask_encoder.cls.__name__} cannot propose regions by itself: take superpixel or sam")
        self.photographs, self.out, self.mode, self.images, self.seed, self.size = photographs, out, mode, images, seed, size
        self.objects, self.components, self.store, self.references = objects, components, store, references
        self.val, self.test = val, test
        self.mask_encoder, self.quality_label = mask_encoder, quality_label
        self.distortions = {name: DISTORTIONS.build({"plugin": name}) for name in sorted(distortions)}
        self.recipe = Recipe(mixed, clean, regions, min_area, visible, full_impact, several)
        self.engine = (engine or ENGINES.part({"plugin": "processes"}))()
        self.label = quality_label()

    def settings(self) -> dict[str, Any]:
        """Everything that the data depends on, beside the photographs."""
        recipe = vars(self.recipe)
        own = {"images": self.images, **recipe} if self.mode == "mixed" else {"objects": self.objects, "components": self.components}
        shared = {k: recipe[k] for k in ("min_area", "visible", "full_impact")}
        return {
            "version": VERSION,
            "schema": SCHEMA_VERSION,
            "mode": self.mode,
            "seed": self.seed,
            "size": self.size,
            **own,
            **shared,
            "store": self.store,
            "references": self.references,
            "val": self.val,
            "test": self.test,
            "distortions": {
                n: {"variants": list(d.variants), "strengths": [list(s) for s in d.strengths]} for n, d in self.distortions.items()
            },
            "mask_encoder": identity(self.mask_encoder),
            "quality_label": {**identity(self.quality_label), "version": self.label.version, "licence": self.label.licence},
            "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
        }

    def _raw(self) -> dict[str, Any]:
        """How RAW photographs are developed, and which distortions happen meanwhile; the others are done to the picture."""
        return {**raw.describe(), "developed": [name for name, distortion in self.distortions.items() if distortion.develops]}

    def run(self) -> dict[str, Any]:
        """Makes what is missing of the data; -> what `data.json` holds, and under "seconds" what this call spent in each stage.

        Raises:
            ConfigError: `out` holds other data, or data begun with other options or photographs, or lies in the folder of photographs.
            FileExistsError: another run is writing into `out`.
            ImageError: no such folder, no photograph in it, or too few scenes.
            ChangedError: a photograph is not what it was when the data was begun.
        """
        self._check_place()
        with alone(self.out):
            return self._run()

    def _run(self) -> dict[str, Any]:
        work = Shards(self, self._plan())
        print(f"labels: {self.label.say()}")
        others = other_files(self.photographs)
        if others:
            said = ", ".join(f"{count:,} {suffix or 'without a suffix'}" for suffix, count in others.items())
            print(f"not looked at, being no photographs by their names: {said}")
        spent = make_all(work, self.engine, f"making {self.out.name}")
        data = work.manifest()
        if not (self.out / DATA).exists():
            write_json(self.out / DATA, data)
        for draft in self.out.rglob(".*.[0-9]*"):  # of processes that were killed
            draft.unlink(missing_ok=True)
        return {**data, "seconds": dict(spent)}

    def _check_place(self) -> None:
        """Before anything is written there."""
        here, there = self.photographs.resolve(), self.out.resolve()
        if here == there or here in there.parents or there in here.parents:
            raise ConfigError(f"{self.out} is, holds or lies in the folder of photographs: write to another place")
        names = [p.name for p in self.out.iterdir()] if self.out.exists() else []
        if PLAN not in names and any(n != LOCK and not n.startswith(f".{PLAN}.") for n in names):
            raise ConfigError(f"{self.out} holds something else than data that was begun here: choose another place")
        find_files(self.photographs)

    def _plan(self) -> dict[str, Any]:
        """What the data was begun with: read, and compared with what is asked for; or made and written."""
        path = self.out / PLAN
        if not path.exists():
            references, left_out = find_references(self.photographs, self.seed, self.val, self.test)
            developed = self._raw() if any(raw.is_raw(r.name) for r in references) else None
            plan = {"recipe": {**self.settings(), "raw": developed}, "photographs": [asdict(r) for r in references], "left_out": left_out}
            write_json(path, plan)
        plan = json.loads(path.read_text(encoding="utf-8"))
        asked = json.loads(json.dumps({**self.settings(), "raw": plan["recipe"]["raw"] and self._raw()}))
        differs = [k for k in asked | plan["recipe"] if asked.get(k) != plan["recipe"].get(k)]
        if differs:
            k = differs[0]
            raise ConfigError(
                f"{self.out} was begun with {k}={plan['recipe'].get(k)!r}, now it is {asked.get(k)!r}"
                f"{f' (and so on: {differs[1:]})' if differs[1:] else ''}: continue with the same, or begin in another folder"
            )
        _check_files(find_files(self.photographs), plan, self.photographs)
        return plan


def _check_files(found: dict[str, int], plan: dict[str, Any], folder: Path) -> None:
    """Names and sizes; contents are compared when they are read."""
    begun = {r["name"]: r["bytes"] for r in plan["photographs"]}
    copies = {r["name"] for r in plan["left_out"]}
    differs = sorted({n for n, size in found.items() if begun.get(n) != size and n not in copies} | (begun.keys() - found))
    if differs:
        raise ConfigError(
            f"{len(differs)} photograph(s) in {folder} came, went or changed since this data was begun (first: {differs[0]}): bring back "
            "what was there, or begin in another folder"
        )
