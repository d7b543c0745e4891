"""Options of use: a finished model's node -> one that stores its language model in fewer bits, or spells answers under the grammar."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.registry import ConfigError


def changed(node: Mapping[str, Any], quantization: str = "", grammar: bool | None = None) -> dict[str, Any]:
    """`node` as it is to be built; what is not asked for stays.

    Args:
        quantization: of the language model, as its adapter calls it: "nf4" or "int8".
        grammar: whether the readouts that generate text choose among well-formed answers alone.

    Raises:
        ConfigError: there is no language model, it trained in full or has no files of weights, or no readout that generates text is named.
    """
    out = dict(node)
    if quantization:
        llm = node.get("llm")
        if not isinstance(llm, Mapping):
            raise ConfigError(f"quantization: got '{quantization}', and {node.get('plugin')} has no language model: leave it out")
        if not llm.get("source") or llm.get("adaptation", "full") == "full":
            raise ConfigError(
                f"quantization: got '{quantization}', and this language model ({llm.get('plugin')}) has no weights in files of its own "
                "that training left as they were, as hf_causal with a source has that is frozen or has adapters: leave it out"
            )
        out["llm"] = {**llm, "quantization": quantization}
    if grammar is not None:
        readouts = dict(node.get("readouts") or {})
        texts = [task for task, readout in readouts.items() if readout["plugin"] == "text"]
        if not texts:
            raise ConfigError(f"grammar: got {grammar}, and this model's node names no readout 'text': leave it out")
        out["readouts"] = readouts | {task: {**readouts[task], "grammar": grammar} for task in texts}
    return out
