"""What cannot be sharded is refused before anything is read."""

import pytest

from components.registry import ConfigError
from lightning_modules.sharing import check_sharing


@pytest.mark.parametrize(
    ("precision", "llm", "optimizer", "message"),
    [
        ("16-mixed", {}, "adamw", r"fsdp with precision 16-mixed: .*Use bf16-mixed"),
        ("32-true", {"adaptation": "qlora"}, "adamw", r"fsdp with model.llm in 4 or 8 bits: .*Use trainer.strategy=ddp"),
        ("32-true", {"adaptation": "lora", "quantization": "int8"}, "adamw", r"fsdp with model.llm in 4 or 8 bits"),
        ("32-true", {}, "adamw_8bit", r"fsdp with optim.optimizer adamw_8bit: .*Use adamw"),
    ],
)
def test_what_cannot_be_sharded_is_refused(precision, llm, optimizer, message):
    check_sharing("fsdp", "32-true", {"plugin": "roi_vlm", "llm": {}}, "adam")
    check_sharing("ddp", precision, {"plugin": "roi_vlm", "llm": llm}, optimizer)
    with pytest.raises(ConfigError, match=message):
        check_sharing("fsdp", precision, {"plugin": "roi_vlm", "llm": llm}, optimizer)
