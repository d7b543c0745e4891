"""Predicted against measured on a real GPU: within a tenth."""

import importlib.util

import pytest
import torch

from components.scorers.base import SCORERS
from lightning_modules.optim import make_optimizer, parameter_groups
from lightning_modules.plan import plan
from tests.lightning_modules.test_plan import LORA, QLORA, node_of, on_meta, real_batch

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
LARGER = {"hidden_size": 1024, "intermediate_size": 2752, "num_hidden_layers": 8, "num_attention_heads": 16, "num_key_value_heads": 16}
WITHOUT_BNB = pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes")


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("adapted", [LORA, pytest.param(QLORA, marks=WITHOUT_BNB)], ids=["lora", "qlora"])
def test_the_peak_is_that_of_a_real_step(adapted, checkpointing):
    config = {"model_type": "llama", "vocab_size": 32002, **LARGER}
    node = node_of({**adapted, "dtype": "bfloat16", "config": config, "gradient_checkpointing": checkpointing}, {})
    found = plan(on_meta(node), batch_size=1, regions=12, precision="bf16-mixed")
    with torch.device("cuda"):
        scorer = SCORERS.build(node)
    scorer.to("cuda").train()
    batch = real_batch(scorer, 1, 12).to("cuda")
    optimizer, _ = make_optimizer(parameter_groups(scorer.parts(), 1e-3, {}, 0.01), (0.9, 0.98), 1, 10, 0.1)
    for _ in range(2):
        torch.cuda.reset_peak_memory_stats()
        with torch.autocast("cuda", torch.bfloat16):
            loss = scorer.loss(batch)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert found.training.tensors == pytest.approx(torch.cuda.max_memory_allocated(), rel=0.1)
