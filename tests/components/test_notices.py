"""One line of bitsandbytes is left out, and nothing else that it says."""

import importlib.util
import logging
from pathlib import Path

import pytest

import components.llm_adapters.hf_causal  # noqa: F401  # which leaves it out
from components.notices import KERNELS

PLACE = "backends/cpu/ops.py"


def test_what_is_left_out_is_what_bitsandbytes_says():
    found = importlib.util.find_spec("bitsandbytes")
    if found is None:
        pytest.skip("pip install 'roi-iqa[qlora]'")
    assert f'"{KERNELS}' in Path(found.submodule_search_locations[0], PLACE).read_text()


def test_that_a_package_is_absent_is_left_out_and_that_it_failed_is_not(caplog):
    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    logger.warning(f"{KERNELS} from a place: %s.", ModuleNotFoundError("No module named 'kernels'"))
    assert caplog.messages == []
    logger.warning(f"{KERNELS} from a place: %s.", OSError("no network"))
    logger.warning("Something else: %s", ModuleNotFoundError("No module named 'kernels'"))
    logger.warning(f"{KERNELS}")
    assert caplog.messages == [f"{KERNELS} from a place: no network.", "Something else: No module named 'kernels'", KERNELS]
