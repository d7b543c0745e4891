"""Any causal language model of `transformers`: frozen, trained in full, or through LoRA on a plain or quantised base."""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from transformers import PretrainedConfig as Architecture
from transformers import PreTrainedModel as Model
from transformers.pytorch_utils import Conv1D
from transformers.utils import cached_file

from components.attention import BY_BRANCH, PLAIN, Attention, reading
from components.cache import RowCache
from components.foundation import RANDOM, fingerprint, fingerprint_of_files
from components.llm_adapters.base import LLM_ADAPTERS, LLMAdapter
from components.notices import leave_out_notices
from components.packable import arguments, cache_name, heedless, unpackable
from components.registry import check_keys
from components.rows import Rows
from components.tokenizer import project_tokenizer

Adaptation = Literal["frozen", "full", "lora", "qlora"]
Quantization = Literal["none", "int8", "nf4"]
leave_out_notices()  # adapters and packed weights import bitsandbytes


@LLM_ADAPTERS.register("hf_causal")
class HFCausal(LLMAdapter):
    """A `transformers` causal language model.

    Construction reads no weights. With `source` it reads the model's tokenizer files, and its config.json unless `config` says the
    same, and the parameters stand on the meta device until `load_pretrained`, which replaces `model`. With `config` alone the
    weights are random and there at once. Quantised weights are made on the ambient device (`with torch.device(...)`), so call
    `load_pretrained` under the one to train on.

    `quantization` says how the decoder blocks' linear maps are stored once weights have been read.

    An embedding is what the first block reads: where a family scales its embeddings (Gemma), `embed` has done it.

    Args:
        source: a hub name or a folder with safetensors weights.
        revision: branch, tag or commit of a hub name.
        config: an architecture, {model_type: llama, hidden_size: ...}. Alone it gets random weights; beside `source` it must agree
            with the source's own, which is checked when the weights are read, and spares reading it before.
        tokenizer: "" for the source's own, "project" for the repository's own (as large as the model's vocabulary allows),
            or a hub name or folder.
        adaptation: which parameters train. "qlora" is "lora" on an nf4 base with double quantisation.
        quantization: of the linear maps inside the decoder blocks, for a base that does not train. int8 (LLM.int8()) chooses
            its outlier columns over the whole batch, so a row's logits depend slightly on its neighbours.
        lora_rank: 128 in the SEAGULL paper.
        lora_alpha: unknown for the paper; 256 is the pair of rank 128 in LLaVA-1.5's published script.
        lora_dropout: probability, before each adapter.
        lora_targets: last names of linear maps inside the decoder blocks ("q_proj"); empty for all of them. The output
            embedding is never adapted. Experts that a family fuses into one tensor are no linear maps: they stay as they are.
        rslora: scales by alpha / sqrt(rank) (arXiv 2312.03732).
        dora: weight-decomposed adapters (arXiv 2402.09353).
        gradient_checkpointing: recomputes each block in the backward pass.
        dtype: of the base weights; adapters are float32.
        attention: "eager" for families that cap their attention scores (Gemma 2). "flex" is FlexAttention, compiled on a GPU: it skips
            what no row of a block looks at, and needs no table of rows and columns. On a CPU it can score, but not train.

    Raises:
        ValueError: options that exclude each other, or an architecture that reads no embeddings or keeps no cache.
    """

    sources = ("source", "tokenizer")

    def __init__(
        self,
        *,
        source: str = "",
        revision: str = "main",
        config: dict[str, Any] | None = None,
        tokenizer: str = "",
        adaptation: Adaptation = "full",
        quantization: Quantization = "none",
        lora_rank: int = 128,
        lora_alpha: int = 256,
        lora_dropout: float = 0.05,
        lora_targets: tuple[str, ...] = (),
        rslora: bool = False,
        dora: bool = False,
        gradient_checkpointing: bool = False,
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        attention: Attention = "sdpa",
    ) -> None:
        super().__init__()
        self._source, self._revision, self._adaptation = source, revision, adaptation
        self.quantization = _quantization(adaptation, quantization)
        self._lora = Lora(lora_rank, lora_alpha, lora_dropout, tuple(lora_targets), rslora, dora)
        self._checkpointing, self._attention = gradient_checkpointing, attention
        self._options: dict[str, Any] = {"dtype": getattr(torch, dtype), "attn_implementation": PLAIN[attention]}
        self._stated = dict(config or {})
        self.architecture = _architecture(source, revision, config)
        self.has_weights = bool(source)
        with torch.device("meta") if source else contextlib.nullcontext():
            model = _built(self.architecture, self._options)
        _refuse_unfit(model)
        if model._supports_attention_backend:
            self._options["attn_implementation"] = BY_BRANCH[attention]
            model.set_attn_implementation(BY_BRANCH[attention])
        self._unpackable = unpackable(model, _decoder(model)[1])
        vocabulary, self.width = cast(nn.Embedding, model.get_input_embeddings()).weight.shape
        self.tokenizer = _tokenizer(tokenizer, source, revision, vocabulary)
        self.blocks = tuple({type(block): None for block in _decoder(model)[1]})
        self._fingerprint = "" if source or adaptation == "full" else fingerprint(model.state_dict())
        if self.quantization != "none" and not source and model.device.type != "meta":
            model = self._read(type(model), None, state_dict=model.state_dict())
        self.model = self._adapted(model)

    def embed(self, ids: Tensor) -> Tensor:
        if self._embedding.weight.is_meta and not ids.is_meta:
            raise RuntimeError(f"the weights of {self._source!r} have not been read: call load_pretrained() first")
        return self._embedding(ids)

    def forward(
        self, embeddings: Tensor, positions: Tensor, branch: Tensor | None = None, cache: Any = None, keep: Tensor | None = None
    ) -> Tensor:
        """As in the contract. What is read in the padding has no meaning, but is finite.

        Raises:
            ValueError: `branch` has another shape, or the architecture cannot read branches.
            RuntimeError: a cache while training with gradient checkpointing, where `transformers` would ignore it, or training with
                FlexAttention on a CPU.
        """
        if cache is not None and self._checkpointing and self.training:
            raise RuntimeError("gradient checkpointing ignores the cache while training: call eval() before cached decoding")
        if self._attention == "flex" and embeddings.device.type == "cpu" and torch.is_grad_enabled():
            raise RuntimeError("attention 'flex' has no backward pass on a CPU: take 'sdpa' to train there, or score under no_grad")
        embeddings = embeddings.to(self._embedding.weight.dtype)
        with reading(self._rows(positions, branch, cache)) as seen:
            output = self.model(**arguments(self.model, embeddings, positions, cache, 0 if keep is None else keep))
        if seen is not None and self._unpackable is None:
            self._unpackable = heedless(_decoder(self.model)[1], seen)
            self.check_packed()
        return output.logits.float()

    def check_packed(self) -> None:
        """See the contract.

        Raises:
            ValueError: the architecture would carry one branch into the next, or does not say what its layers look at.
        """
        if self._unpackable:
            raise ValueError(f"'{self.architecture.model_type}' cannot read packed rows: {self._unpackable}. Set model.packing to none")

    def new_cache(self) -> RowCache:
        return RowCache(self.architecture)

    def fork_cache(self, cache: RowCache) -> RowCache:
        return cache.fork()

    def return_cache(self, cache: RowCache) -> None:
        cache.give_back()

    def base_model(self) -> dict[str, str] | None:
        """See the contract; the revision is the commit, once the weights have been read."""
        if not self._source or Path(self._source).exists():
            return None
        commit = getattr(self.model.config, "_commit_hash", None) or getattr(self.architecture, "_commit_hash", None)
        return {"id": self._source, "revision": commit or self._revision}

    def foundation(self) -> dict[str, str] | None:
        """See the contract; of weights in files, whatever precision they are loaded in."""
        if self._adaptation == "full":
            return None
        base = self.base_model()
        return {
            "model": f"{base['id']} at revision {base['revision']}" if base else self._source or RANDOM,
            "architecture": _outline(self.architecture),
            "weights": self._fingerprint,
        }

    def load_pretrained(self) -> None:
        """Reads the weights of `source`, quantises them where asked, and adds new adapters.

        Raises:
            RuntimeError: called twice, or the weights in `source` are not exactly those of the architecture.
        """
        if not self._source:
            return
        if self.model.device.type != "meta":
            raise RuntimeError(f"the weights of {self._source!r} were read already; reading them again would undo training")
        if self._stated:
            _check_agrees(self._stated, self.architecture, self._source, self._revision)
        cls = type(self.model)
        self.model = self._adapted(self._read(cls, self._source, revision=self._revision, use_safetensors=True))
        if self._adaptation != "full":
            self._fingerprint = fingerprint_of_files(_folder(self._source, self._revision))

    @classmethod
    def tiny(cls) -> dict[str, Any]:
        config = {
            "model_type": "llama",
            "vocab_size": 512,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
        }
        return {"config": config, "tokenizer": "project"}

    @functools.cached_property
    def token_bytes(self) -> tuple[int, int]:
        """See the contract. A block holds its input, what was normalised, and three outputs of its widest linear map."""
        text = self.architecture.get_text_config(decoder=True)
        heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
        head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        linears = map(self.model.get_submodule, _linears(self.model))
        widest = max(m.nf if isinstance(m, Conv1D) else m.out_features for m in cast(Iterator[nn.Linear | Conv1D], linears))
        size = self._options["dtype"].itemsize
        return 2 * size * text.num_hidden_layers * heads * head, size * (4 * text.hidden_size + 3 * widest)

    @property
    def output(self) -> nn.Module:
        """See the contract."""
        return cast(nn.Module, self.model.get_output_embeddings())

    @property
    def _embedding(self) -> nn.Embedding:
        return cast(nn.Embedding, self.model.get_input_embeddings())

    def _rows(self, positions: Tensor, branch: Tensor | None, cache: RowCache | None) -> Rows | None:
        if branch is not None:
            self.check_packed()
            if branch.shape != positions.shape:
                raise ValueError(f"branch is {tuple(branch.shape)}, expected (B, T) = {tuple(positions.shape)} as the positions")
        if cache is not None:
            return cache.read(branch, positions)
        return None if branch is None else Rows(branch, positions, positions.shape[1])

    def _read(self, cls: Any, source: str | None, **options: Any) -> Model:
        if self.quantization != "none":
            # Without a device, transformers would take the first GPU it finds.
            options |= {"quantization_config": self._quantized(cls), "device_map": {"": torch.get_default_device()}}
        model, found = cls.from_pretrained(source, config=self.architecture, output_loading_info=True, **options, **self._options)
        for kind in ("missing", "unexpected"):
            if names := sorted(found[f"{kind}_keys"]):
                raise RuntimeError(
                    f"{source}: {len(names)} weights of {cls.__name__} are {kind}, such as {names[0]!r}. "
                    "The files and their config.json must belong to one model"
                )
        return model

    def _quantized(self, cls: type[Model]) -> BitsAndBytesConfig:
        with torch.device("meta"):
            skeleton = cls(self.architecture)
        inside = set(_linears(skeleton))
        outside = [name for name, module in skeleton.named_modules() if isinstance(module, (nn.Linear, Conv1D)) and name not in inside]
        if self.quantization == "int8":
            return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=outside)
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=self._options["dtype"],
            llm_int8_skip_modules=outside,
        )

    def _adapted(self, model: Model) -> Model:
        for module in model.modules():
            if hasattr(module, "support_avx512bf16_for_cpu"):
                # bitsandbytes repacks a weight at its first inference on such a CPU; gradients through it are wrong from then on.
                module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
        model.requires_grad_(self._adaptation == "full")
        if self._adaptation in ("lora", "qlora"):
            self._lora.add_to(model)
        if self._checkpointing:
            enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)  # renamed in 5.x
            enable({"use_reentrant": False})
            model.disable_input_require_grads()  # a hook for re-entrant checkpointing, which would mark what `embed` returns
        return model.train(self.training)


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters (arXiv 2106.09685) on linear maps of the decoder blocks; all else is frozen."""

    rank: int
    alpha: int
    dropout: float
    targets: tuple[str, ...]
    rslora: bool
    dora: bool

    def add_to(self, model: Model) -> None:
        from peft import LoraConfig, inject_adapter_in_model  # imports slowly; only adapters need it

        inject_adapter_in_model(
            LoraConfig(
                r=self.rank,
                lora_alpha=self.alpha,
                lora_dropout=self.dropout,
                target_modules=self._chosen(model),
                use_rslora=self.rslora,
                use_dora=self.dora,
            ),
            model,
        )
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()

    def _chosen(self, model: Model) -> list[str]:
        linears = _linears(model)
        known = sorted({name.rpartition(".")[2] for name in linears})
        for target in self.targets:
            if target not in known:
                raise ValueError(f"lora_targets: no linear map '{target}' in the decoder blocks. Known: {', '.join(known)}")
        return [name for name in linears if not self.targets or name.rpartition(".")[2] in self.targets]


def _quantization(adaptation: Adaptation, quantization: Quantization) -> Quantization:
    if adaptation == "full" and quantization != "none":
        raise ValueError(f"adaptation 'full' cannot train '{quantization}' weights: use 'lora', 'qlora' or quantization 'none'")
    if adaptation == "qlora" and quantization == "int8":
        raise ValueError("adaptation 'qlora' is LoRA on nf4 weights: for int8 weights use adaptation 'lora'")
    return "nf4" if adaptation == "qlora" else quantization


def _architecture(source: str, revision: str, config: dict[str, Any] | None) -> Architecture:
    if not source and not config:
        raise ValueError("give source (a hub name or a folder), config (an architecture), or both; got neither")
    if config:
        if "model_type" not in config:
            raise ValueError(f"config needs the key 'model_type' (llama, qwen3, ...), got {sorted(config)}")
        options = {k: v for k, v in config.items() if k != "model_type"}
        plain = AutoConfig.for_model(config["model_type"])
        check_keys(options, [*plain.to_dict(), *plain.attribute_map, "rope_theta", "rope_scaling"], "config")
        return AutoConfig.for_model(config["model_type"], **copy.deepcopy(options))
    return _architecture_of(source, revision)


def _architecture_of(source: str, revision: str) -> Architecture:
    with _named(source):
        found = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
    if getattr(found, "quantization_config", None):
        raise ValueError(f"{source} is quantised already: name its unquantised weights, and choose by quantization")
    return found


@contextlib.contextmanager
def _named(source: str) -> Iterator[None]:
    """Files that cannot be had, in words that name them."""
    try:
        yield
    except OSError as error:
        reason = str(error).strip().splitlines()[0]
        raise FileNotFoundError(
            f"{source}: neither a folder with such a model nor one that the hub gives ({reason}). Give a folder, a name on the hub, "
            "or make it first (a released checkpoint: python prepare.py import-seagull)"
        ) from error


def _outline(architecture: Architecture) -> str:
    """The sizes that weights must agree with, in words; the same in every version of transformers."""
    text = architecture.get_text_config(decoder=True)
    heads = f"{text.num_attention_heads} heads ({getattr(text, 'num_key_value_heads', None) or text.num_attention_heads} of keys)"
    return f"{architecture.model_type} of {text.num_hidden_layers} layers, width {text.hidden_size}, {heads}, {text.vocab_size} tokens"


def _folder(source: str, revision: str) -> Path:
    """Where the files of a model are, after they have been read: its own folder, or one in the hub's cache."""
    if Path(source).is_dir():
        return Path(source)
    config = cached_file(source, "config.json", revision=revision)
    assert config is not None
    return Path(config).parent


def _check_agrees(stated: Mapping[str, Any], architecture: Architecture, source: str, revision: str) -> None:
    """Raises ValueError where `source` is not of the stated architecture. A wrong head count or epsilon would load and score wrongly."""
    found, wanted = _architecture_of(source, revision).to_dict(), architecture.to_dict()
    differ = [f"{k}: {found.get(k)!r} there, {wanted[k]!r} here" for k in wanted if k in stated and found.get(k) != wanted[k]]
    if differ:
        raise ValueError(f"{source} is not of the architecture that `config` states ({'; '.join(differ)}): correct config, or leave it out")


def _built(architecture: Architecture, options: dict[str, Any]) -> Model:
    try:
        return AutoModelForCausalLM.from_config(architecture, **options)
    except ValueError as error:
        raise ValueError(f"'{architecture.model_type}' with attention '{options['attn_implementation']}': {error}") from error


def _tokenizer(name: str, source: str, revision: str, vocabulary: int) -> Any:
    if name == "project":
        from components.prompts import TOKENIZER_CORPUS  # here, because prompts need a tokenizer too

        return project_tokenizer(TOKENIZER_CORPUS, vocabulary)
    if not name and not source:
        raise ValueError("config names an architecture, not a tokenizer: set tokenizer to 'project', a hub name or a folder")
    with _named(name or source):
        tokenizer = AutoTokenizer.from_pretrained(name or source, revision="main" if name else revision, trust_remote_code=False)
    if not tokenizer.is_fast:
        raise ValueError(f"{name or source} has no fast tokenizer, got {type(tokenizer).__name__}: set tokenizer to one that has")
    if name and len(tokenizer) > vocabulary:
        raise ValueError(f"tokenizer {name!r} has {len(tokenizer)} tokens, the model {vocabulary} embeddings: take one that fits")
    return tokenizer


def _refuse_unfit(model: Model) -> None:
    """Raises ValueError where the model cannot read embeddings behind a cache."""
    needed = ("inputs_embeds", "attention_mask", cache_name(model), "logits_to_keep")
    missing = [n for n in needed if n not in inspect.signature(model.forward).parameters]
    if missing:
        raise ValueError(f"'{model.config.model_type}' cannot be used: its forward does not read {', '.join(missing)}")


def _decoder(model: Model) -> tuple[str, nn.ModuleList]:
    """The list of decoder blocks, and its name."""
    depth = model.config.get_text_config(decoder=True).num_hidden_layers
    inside = set(model.get_decoder().modules())  # a vision tower beside it may be as deep
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth and module in inside:
            return name, module
    raise ValueError(f"{type(model).__name__} has no list of {depth} decoder blocks")


def _linears(model: Model) -> list[str]:
    """Full names of the linear maps inside the decoder blocks."""
    name, blocks = _decoder(model)
    return [f"{name}.{inner}" for inner, module in blocks.named_modules() if isinstance(module, (nn.Linear, Conv1D))]


def decoder_linears(model: Model) -> list[tuple[nn.Module, str, nn.Linear]]:
    """The linear maps inside the decoder blocks, adapters left out, each with the module that holds it and its name there."""
    _, blocks = _decoder(model)
    found = []
    for name, parent in blocks.named_modules():
        if "lora_" not in name:
            found += [(parent, inner, m) for inner, m in parent.named_children() if isinstance(m, nn.Linear)]
    return found
