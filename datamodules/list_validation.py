"""Looks for everything that is wrong with a list of regions and its images, by the list's lines (tables: `datamodules.validation`)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from components.registry import ConfigError
from datamodules.duplicates import Copies, Elsewhere
from datamodules.findings import SHOWN, Report
from datamodules.listed_images import MISSING, OF_THE_LIST, Listed
from datamodules.region_list import SCORES, Mistake
from datamodules.validation import Spreads

UNSURE = ("row", "column", "split", "source in two splits", "group", "too few groups")  # mistakes that may hide a test image
BESIDE = "beside a mistake"  # why a row is lost that has none itself


def validate_list(listed: Listed, name: str, elsewhere: Elsewhere | None = None) -> Report:
    """What `RoiFolder.read` found, and what shows only where images and scores are compared.

    Args:
        name: of the list, for places.
        elsewhere: test images that none of train and val may be.
    """
    report = Report()
    for mistake in listed.mistakes:
        report.add(mistake.kind, _place(name, mistake), mistake.what)

    def where(number: int) -> str:
        return f"{name} line {listed.images[number].line}, image {listed.images[number].record.id!r}"

    def leave_out(number: int, kind: str) -> None:
        report.leave_out(listed.images[number].record.id, kind)

    copies, spreads = Copies(report, where, leave_out, elsewhere), Spreads(report)
    for number, record in enumerate(image.record for image in listed.images):
        copies.add(number, [record.hash], record.split, where(number))
        for region in record.regions:
            report.regions += 1
            for score in SCORES:
                scale, std = getattr(region, f"{score}_scale"), getattr(region, f"{score}_std")
                report.labelled[score] += getattr(region, score) is not None
                if std is not None:
                    report.labelled[f"{score}_std"] += 1
                    spreads.add(score, scale, scale.given_std(std))
            report.labelled["distortions"] += region.distortions is not None
    spreads.finish()
    report.splits.update(listed.splits.values())
    report.images = len({*listed.table.images.values()} - {""})
    report.listed = len(listed.table.images)
    _leave_out(report, listed)
    report.left.update(listed.splits[image] for image in report.unusable if image in listed.splits)
    report.tell_empty_splits()
    return report


def tests_of_list(listed: Listed, name: str) -> Elsewhere:
    """The test images of a list, by their bytes; one that cannot be read has none.

    Raises:
        ConfigError: which they are is unsure: the list names no splits, or no test image, or has mistakes that may hide one.
    """
    unsure = [m for m in listed.mistakes if m.kind in UNSURE or (m.image and m.image not in listed.splits)]
    if unsure:
        said = "; ".join(_place(name, m) + f": {m.what}" for m in unsure[:SHOWN])
        more = f"; and {len(unsure) - SHOWN:,} more" if len(unsure) > SHOWN else ""
        raise ConfigError(f"{name}: which images are of its test is unsure, so nothing can be kept apart from them. Mend it: {said}{more}")
    if not any("split" in row for row in listed.table.rows):
        raise ConfigError(f"{name} names no splits, which each training deals by its own seed and shares: write a column split")
    if "test" not in listed.splits.values():
        raise ConfigError(f"{name} has no test image: there is nothing to keep apart from")
    found = Elsewhere()
    for image in listed.images:
        if image.record.split == "test":
            found.add([image.record.hash], f"{name} line {image.line}, image {image.record.id!r}")
    for mistake in listed.mistakes:
        if mistake.kind in (*MISSING, "path") and listed.splits[mistake.image] == "test":
            found.add([], _place(name, mistake))
    return found


def _place(name: str, mistake: Mistake) -> str:
    line = f" line {mistake.line}" if mistake.line else ""
    return f"{name}{line}{f', image {mistake.image!r}' if mistake.image else ''}"


def _leave_out(report: Report, listed: Listed) -> None:
    """Whole images: a list that names a part of an image's regions in error may have lost others."""
    reasons: dict[int, str] = {}
    whole = dict(report.unusable)
    for mistake in _costly(listed.mistakes):
        report.leave_out(mistake.image, mistake.kind)
        reasons.setdefault(mistake.line, mistake.kind)
        if mistake.kind in (*MISSING, "path"):
            whole[mistake.image] = mistake.kind
    lines: dict[str, list[int]] = defaultdict(list)
    for line, image in listed.table.images.items():
        lines[image].append(line)
    for image in report.unusable:
        for line in lines[image]:
            report.lost[whole.get(image) or reasons.get(line, BESIDE)] += 1


def _costly(mistakes: Iterable[Mistake]) -> list[Mistake]:
    """Those whose images training must leave out."""
    return [m for m in mistakes if m.kind in MISSING or (m.stops and m.kind not in OF_THE_LIST)]
