import numpy as np
import pandas as pd
import pytest

TYPES = ("blur", "noise", "compression", "")


@pytest.fixture(scope="session")
def answers() -> pd.DataFrame:
    """48 regions of 12 images from 4 sources, with answers that are good but not perfect and one that did not parse."""
    rng = np.random.default_rng(0)
    n = 48
    index = np.arange(n)
    quality, importance = rng.random(n), rng.random(n)
    types = np.array(TYPES, object)[index % 4]
    severities = np.where(types == "", "", np.array(["minor", "severe"], object)[index % 2])
    table = pd.DataFrame(
        {
            "id": [f"region-{i}" for i in index],
            "image": [f"image-{i // 4}" for i in index],
            "source": [f"source-{i // 12}" for i in index],
            "area": 0.2,
            **dict.fromkeys(("left", "top"), 0.1),
            **dict.fromkeys(("width", "height"), 0.4),
            "quality": quality,
            "importance": importance,
            "types": types,
            "severities": severities,
            "quality_pred": np.clip(quality + 0.1 * rng.normal(size=n), 0, 1),
            "quality_std": 0.1,
            "importance_pred": np.clip(importance + 0.2 * rng.normal(size=n), 0, 1),
            "importance_std": np.nan,
            "types_pred": np.roll(types, 4),
            "severities_pred": np.roll(severities, 4),
            "quality_parsed": index != 5,
            "importance_parsed": True,
            "distortion_parsed": index != 7,
            "quality_image": rng.random(n),
            "importance_image": 0.5,
            "quality_text": "The quality is fair.",
            "importance_text": "This region is normal to the overall quality.",
            "distortion_text": "With minor blur distortions.",
        }
    )
    table.loc[5, "quality_pred"] = np.nan
    table.loc[7, ["types_pred", "severities_pred"]] = None
    return table
