"""What other packages say that nobody needs to know, and that is not printed."""

from __future__ import annotations

import logging

KERNELS = "Failed to load CPU gemm_4bit_forward"  # how bitsandbytes' line begins


def leave_out_notices() -> None:
    """From now on leaves out what bitsandbytes says when it is imported on a CPU that multiplies in bfloat16 and the package `kernels` is
    not installed: weights in four bits are multiplied by its own routine then, so that nothing is amiss. Whatever else it says is
    printed, as that `kernels` is there and failed."""
    logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(_told)  # added once, however often


def _told(record: logging.LogRecord) -> bool:
    absent = isinstance(record.args, tuple) and record.args and isinstance(record.args[0], ModuleNotFoundError)
    return not (absent and str(record.msg).startswith(KERNELS))
