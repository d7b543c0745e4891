"""The shards of a synthesis: photographs -> references, regions, distorted images, labels, one Parquet part each."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from components.mask_encoders.base import MaskEncoder, Masks
from components.rle import RegionError
from datamodules.distortions.base import SETTINGS, Image
from datamodules.engines.base import Clock, Made, Work
from datamodules.images import ImageError, is_file
from datamodules.making import write_atomically, write_json
from datamodules.proposals import propose_regions
from datamodules.quality_labels.base import Comparison
from datamodules.records import SPLITS, ImageRecord, RegionRecord, encode_png
from datamodules.references import Clean, Reference, read_reference
from datamodules.synthesis import Chains, labelled, synthesize
from datamodules.tables import RecordWriter, open_table, read_group

if TYPE_CHECKING:
    from datamodules.synthesis_job import Synthesis

MIXED_SHARD = 16  # images in a part of mode mixed; a part of mode seagull_100w is one photograph's
RECEIPTS = ".job"


class Shards(Work):
    """Shard s of mode seagull_100w is photograph s in all types and settings, of mode mixed the images from 16 s on.

    An image's number and what is drawn for it follow from its place alone: what is skipped moves nothing else.
    """

    def __init__(self, job: Synthesis, plan: dict[str, Any]) -> None:
        self.job, self.plan = job, plan
        self.references = [Reference(**r) for r in plan["photographs"]]
        self.key = hashlib.sha256(json.dumps([str(job.out.resolve()), plan], sort_keys=True).encode()).hexdigest()
        self.libraries = (*plan["recipe"]["libraries"], *(["rawpy"] if plan["recipe"]["raw"] else []))
        self.kinds = list(job.distortions)
        each = len(self.kinds) * SETTINGS
        self.total = len(self.references) * each if job.mode == "seagull_100w" else job.images or len(self.references)
        self.size = each if job.mode == "seagull_100w" else MIXED_SHARD
        self._encoder: MaskEncoder | None = None
        self._held: tuple[int, Clean | str] = (-1, "")
        self._regions: tuple[list[str], Masks] | None = None
        self._compare: Comparison | None = None

    def __len__(self) -> int:
        return -(-self.total // self.size)

    def images(self, shard: int) -> int:
        return min(self.size, self.total - shard * self.size)

    def is_done(self, shard: int) -> bool:
        """Whether all is there that was made of it: the receipt, the part, and the files that the part names.

        Raises:
            ValueError: the part is damaged, and to be deleted.
        """
        part = self._part(shard)
        if not (self._receipt(shard).exists() and part.exists()):
            return False
        with open_table(part) as file:
            groups = [read_group(file, part, group, ["path", "reference"]) for group in range(file.num_row_groups)]
        names = {name for group in groups for column in group.columns for name in column.unique().to_pylist()}
        return all(is_file(self.job.out / name) for name in names if name)

    def get_ready(self) -> None:
        self._encoder = self.job.mask_encoder()
        self._encoder.load_pretrained()

    def make(self, shard: int) -> Made:
        clock, made, skipped = Clock(), Counter[str](), dict[tuple[str, str], int]()
        with RecordWriter(self._part(shard)) as part:
            for record in self._records(range(shard * self.size, shard * self.size + self.images(shard)), clock, skipped):
                made.update({record.split: 1, "regions": len(record.regions)})
                part.write(record)
            lost = [{"name": name, "images": count, "why": why} for (name, why), count in skipped.items()]
            write_json(self._receipt(shard), {**made, "skipped": lost})  # before the part gets its name: a part that is there is done
        return Made(sum(made[s] for s in SPLITS), made["regions"], tuple(lost), dict(clock))

    def manifest(self) -> dict[str, Any]:
        """What the finished data is; equal for equal data."""
        receipts = [json.loads(self._receipt(shard).read_text(encoding="utf-8")) for shard in range(len(self))]
        splits = {s: sum(r.get(s, 0) for r in receipts) for s in SPLITS}
        skipped: Counter[tuple[str, str]] = Counter()
        for lost in (x for r in receipts for x in r["skipped"]):
            skipped[lost["name"], lost["why"]] += lost["images"]
        return {
            "counts": {"images": sum(splits.values()), "regions": sum(r.get("regions", 0) for r in receipts), **splits},
            "skipped": [{"name": n, "images": count, "why": why} for (n, why), count in skipped.items()],
            **self.plan,
        }

    def _part(self, shard: int) -> Path:
        return self.job.out / f"part-{shard:06d}.parquet"

    def _receipt(self, shard: int) -> Path:
        return self.job.out / RECEIPTS / f"{shard:06d}.json"

    def _records(self, items: range, clock: Clock, skipped: dict[tuple[str, str], int]) -> Iterator[ImageRecord]:
        for item in items:
            number = item // self.size if self.job.mode == "seagull_100w" else item * len(self.references) // self.total
            reference = self.references[number]
            try:
                yield self._record(item, reference, clock)
            except (ImageError, RegionError) as error:
                why = reference.name, str(error).replace(f"{self.job.photographs}/", "")
                skipped[why] = skipped.get(why, 0) + 1

    def _record(self, item: int, reference: Reference, clock: Clock) -> ImageRecord:
        job = self.job
        clean = self._clean(reference, clock)
        if job.mode == "seagull_100w":
            kind, setting = self.kinds[item % self.size // SETTINGS], item % SETTINGS
            name = f"{kind}_{setting}/{reference.number:06d}"
            distorted, regions = self._all_over(clean, reference, kind, setting, clock)
        else:
            name = f"{item // 1000:03d}/{item:06d}"
            distorted, regions = self._drawn(clean, reference, item, clock)
        with clock("encoding"):
            png = encode_png(distorted)
            path = "" if job.store == "embedded" else f"images/{name}.png"
            if path:
                write_atomically(job.out / path, png)
        named = tuple(replace(r, id=f"{name}/{r.id}") for r in regions)
        return ImageRecord(
            id=name,
            source=reference.source,
            split=reference.split,
            height=distorted.shape[0],
            width=distorted.shape[1],
            regions=named,
            png=b"" if path else png,
            path=path,
            hash=f"sha256:{hashlib.sha256(png).hexdigest()}",
            reference=self._reference_path(reference) if job.references else "",
        )

    def _clean(self, reference: Reference, clock: Clock) -> Clean:
        """Of the photographs one is held: the images made of it follow one another. One that cannot be read is not tried again."""
        if self._held[0] != reference.number:
            found: Clean | str
            with clock("decoding"):
                try:
                    found = read_reference(self.job.photographs, reference, self.job.size)
                except ImageError as error:
                    found = str(error)
            self._held, self._regions, self._compare = (reference.number, found), None, None
            if isinstance(found, Clean) and self.job.references:
                path = self.job.out / self._reference_path(reference)
                with clock("encoding"):
                    if not path.exists():
                        write_atomically(path, encode_png(found.image))
        clean = self._held[1]
        if isinstance(clean, str):
            raise ImageError(clean)
        return clean

    def _all_over(self, clean: Clean, reference: Reference, kind: str, setting: int, clock: Clock) -> tuple[Image, list[RegionRecord]]:
        """One distortion everywhere, the same regions whichever it is."""
        job = self.job
        names, masks = self._proposals(clean, reference, clock)
        with clock("labelling"):
            self._compare = self._compare or job.label.against(clean.image, masks)
        with clock("distorting"):
            seed = int(np.random.default_rng([job.seed, reference.number, self.kinds.index(kind), setting]).integers(2**31))
            distorted = self._chains(clean, seed)(((kind, setting),))
        with clock("labelling"):
            applied = [((kind, setting),)] * len(masks)
            regions = labelled(masks, self._compare(distorted), applied, job.distortions, job.recipe)
        return distorted, [replace(region, id=name) for name, region in zip(names, regions, strict=True)]

    def _drawn(self, clean: Clean, reference: Reference, item: int, clock: Clock) -> tuple[Image, list[RegionRecord]]:
        """Regions, distortions and settings from the image's own generator."""
        job = self.job
        _, masks = self._proposals(clean, reference, clock)
        rng = self._generator(item)
        distorted, regions = synthesize(clean.image, masks, job.distortions, job.label, job.recipe, rng, clock, clean.light)
        if not regions:
            raise RegionError(f"no region covers min_area={job.recipe.min_area} of the image")
        return distorted, regions

    def _generator(self, item: int) -> np.random.Generator:
        """What all that happens to an image of mode mixed is drawn from."""
        return np.random.default_rng([self.job.seed, item])

    def _proposals(self, clean: Clean, reference: Reference, clock: Clock) -> tuple[list[str], Masks]:
        job, found = self.job, self._regions
        if found is None:
            assert self._encoder is not None
            with clock("regions"):
                if job.mode == "mixed":
                    found = [], self._encoder.propose(clean.image)
                else:
                    rng = np.random.default_rng([job.seed, reference.number])
                    found = propose_regions(clean.image, self._encoder, job.objects, job.components, job.recipe.min_area, rng)
            self._regions = found
        if not len(found[1]):
            raise RegionError("the mask encoder finds no region in it that is large enough: lower min_area, or take another encoder")
        return found

    def _chains(self, clean: Clean, seed: int) -> Chains:
        return Chains(clean.image, self.job.distortions, clean.light, seed)

    @staticmethod
    def _reference_path(reference: Reference) -> str:
        return f"references/{reference.number:06d}.png"
