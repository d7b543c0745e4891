"""`train.py --list`: every plugin of every kind, read from disk, with its parameters."""

from __future__ import annotations

from omegaconf import MISSING

from components.llm_adapters.base import LLM_ADAPTERS
from components.mask_encoders.base import MASK_ENCODERS
from components.readouts.base import READOUTS
from components.region_extractors.base import REGION_EXTRACTORS
from components.registry import Registry
from components.scorers.base import SCORERS
from components.vision_encoders.base import VISION_ENCODERS
from datamodules.datasets.base import DATASETS
from datamodules.distortions.base import DISTORTIONS
from datamodules.engines.base import ENGINES
from datamodules.quality_labels.base import QUALITY_LABELS

KINDS: tuple[Registry, ...] = (  # type: ignore[type-arg]
    SCORERS,
    VISION_ENCODERS,
    REGION_EXTRACTORS,
    LLM_ADAPTERS,
    READOUTS,
    MASK_ENCODERS,
    DATASETS,
    DISTORTIONS,
    QUALITY_LABELS,
    ENGINES,
)


def list_plugins() -> str:
    """A plugin that cannot be imported (an optional package is missing) is listed with the reason."""
    lines = []
    for registry in KINDS:
        lines.append(registry.kind)
        for name in registry.names():
            try:
                schema = registry.schema(name)
            except ImportError as error:
                lines.append(f"  {name}: not available here ({error})")
                continue
            summary = next(iter((registry.get(name).__doc__ or "").strip().splitlines()), "")
            lines.append(f"  {name}: {summary}".rstrip())
            for p in schema.values():
                default = " (required)" if p.default is MISSING else f" = {p.default!r}"
                lines.append(f"      {p.name}: {p.type_name}{default}")
        lines.append("")
    return "\n".join(lines).rstrip()
