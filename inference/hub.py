"""Models on the hub, through huggingface_hub's own mixin: `from_pretrained`, `save_pretrained`, `push_to_hub`."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelHubMixin
from torch import Tensor

from components.scorers.base import Scorer
from components.tasks import RegionScores
from inference.load import find
from inference.saved import CONFIG, About, save, share


class RoiIQA(ModelHubMixin, library_name="roi-iqa", tags=["image-quality-assessment", "region-of-interest"]):
    """A trained scorer with the plugin node that it is built from.

    `RoiIQA.from_pretrained(x)` takes what `inference.load.load` takes: a run's folder, a saved model's folder, or a name on the hub;
    `device="cuda"` puts it there.

    Args:
        scorer: in eval mode from now on. node: {plugin: ..., ...}, of the scorer. about: what its readers should know.
    """

    def __init__(self, scorer: Scorer, node: Mapping[str, Any], about: About | None = None) -> None:
        self.scorer, self.node, self.about = scorer.eval(), dict(node), about or About()

    def score(self, image: Tensor, masks: Tensor, tasks: Sequence[Any] | None = None) -> list[RegionScores]:
        """As `Scorer.score`: image (3, H, W) uint8, masks (R, H, W) bool; all tasks where none are named."""
        return self.scorer.score(image, masks, self.scorer.tasks if tasks is None else tasks)

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> str | None:
        """As the mixin's; what is there is replaced when all has been written, also where this model was read from. Other files stay."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as draft:
            out = super().save_pretrained(draft, **{"repo_id": folder.name, **options})
            Path(draft).chmod(folder.stat().st_mode)
            share(Path(draft))
            for file in sorted(Path(draft).iterdir(), key=lambda f: f.name == CONFIG):  # what makes it a model comes last
                target = folder / file.name
                if target.is_dir():
                    shutil.rmtree(target)
                file.replace(target)
        return None if out is None else str(out)

    def _save_pretrained(self, save_directory: Path) -> None:
        save(Path(save_directory), self.scorer, self.node, self.about)

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        **model_kwargs: Any,
    ) -> RoiIQA:
        hub = {"revision": revision, "cache_dir": cache_dir, "force_download": force_download, "local_files_only": local_files_only}
        device = model_kwargs.pop("device", "cpu")
        if model_kwargs:
            raise TypeError(f"from_pretrained has no option {', '.join(model_kwargs)}: there is device, beside the hub's own")
        return cls(*find(model_id, device, dict, token=token, **hub))
