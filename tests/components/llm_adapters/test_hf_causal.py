"""Real architectures, small and random; adapters, quantised bases, folders of weights, and every refusal."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.models.llama.modeling_llama import LlamaDecoderLayer
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeDecoderLayer
from transformers.tokenization_python import PythonBackend

from components import packable
from components.llm_adapters.base import LLM_ADAPTERS
from components.llm_adapters.hf_causal import HFCausal, _decoder
from components.registry import ConfigError
from components.tokenizer import project_tokenizer

CLOSE = {"atol": 1e-5, "rtol": 1e-4}
SIZES = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
WITHOUT_HEAD_DIM = {k: v for k, v in SIZES.items() if k != "head_dim"}
FAMILIES = {
    "llama": {"config": {"model_type": "llama", **SIZES}},
    "mistral": {"config": {"model_type": "mistral", **SIZES}},
    "qwen2": {"config": {"model_type": "qwen2", **WITHOUT_HEAD_DIM}},
    "qwen3": {"config": {"model_type": "qwen3", **SIZES}},
    "phi3": {"config": {"model_type": "phi3", **WITHOUT_HEAD_DIM}},
    "gemma": {"config": {"model_type": "gemma", **SIZES}},
    "gemma2": {"config": {"model_type": "gemma2", **SIZES}, "attention": "eager"},
    "gemma3_text": {"config": {"model_type": "gemma3_text", **SIZES}},
    "gpt2": {"config": {"model_type": "gpt2", "vocab_size": 300, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}},
    "llama eager": {"config": {"model_type": "llama", **SIZES}, "attention": "eager"},
}
LORA = {"adaptation": "lora", "lora_rank": 4, "lora_alpha": 8, "lora_dropout": 0.0}


def make(seed=0, **options):
    torch.manual_seed(seed)
    return HFCausal(**{**FAMILIES["llama"], "tokenizer": "project", **options})


def ids_of(*shape, seed=1):
    return torch.randint(3, 300, shape, generator=torch.Generator().manual_seed(seed))


def span(batch, start, stop):
    return torch.arange(start, stop).expand(batch, -1)


def read(adapter, ids, **options):
    return adapter(adapter.embed(ids), span(len(ids), 0, ids.shape[1]), **options)


def loss_of(adapter, ids):
    return torch.nn.functional.cross_entropy(read(adapter, ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def trainable(adapter):
    return {n: p for n, p in adapter.named_parameters() if p.requires_grad}


def frozen(adapter):
    return {n: p for n, p in adapter.named_parameters() if not p.requires_grad}


@pytest.fixture(params=FAMILIES, scope="module")
def family(request):
    return make(**FAMILIES[request.param]).eval()


@torch.no_grad()
def test_family_reads_embeddings_as_it_reads_ids(family):
    ids = ids_of(2, 7)
    torch.testing.assert_close(read(family, ids), family.model(input_ids=ids).logits, **CLOSE)


@torch.no_grad()
def test_family_cached_equals_full(family):
    ids, cache = ids_of(2, 8), family.new_cache()
    first = read(family, ids[:, :3], cache=cache)
    second = family(family.embed(ids[:, 3:7]), span(2, 3, 7), cache=cache)
    third = family(family.embed(ids[:, 7:]), span(2, 7, 8), cache=cache, keep=torch.tensor([0]))
    torch.testing.assert_close(torch.cat([first, second, third], 1), read(family, ids), **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("cached", [False, True])
def test_family_packed_equals_separate(family, cached):
    prefix, a, b = ids_of(2, 5), ids_of(2, 3, seed=2), ids_of(2, 4, seed=3)
    separate = torch.cat([read(family, torch.cat([prefix, x], 1))[:, 5:] for x in (a, b)], 1)
    branch = torch.tensor([0] * 5 + [1] * 3 + [2] * 4).expand(2, -1)
    positions = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 5, 6, 7, 8]).expand(2, -1)
    embeddings = family.embed(torch.cat([prefix, a, b], 1))
    if cached:
        cache = family.new_cache()
        family(embeddings[:, :5], positions[:, :5], cache=cache)
        packed = family(embeddings[:, 5:], positions[:, 5:], branch[:, 5:], cache)
    else:
        packed = family(embeddings, positions, branch)[:, 5:]
    torch.testing.assert_close(packed, separate, **CLOSE)


@torch.no_grad()
def test_family_forks_its_cache(family):
    prefix, tails, cache = ids_of(2, 5), [ids_of(2, 2, seed=seed) for seed in (2, 3)], family.new_cache()
    read(family, prefix, cache=cache)
    for tail in tails:
        after = family(family.embed(tail), span(2, 5, 7), cache=family.fork_cache(cache))
        torch.testing.assert_close(after, read(family, torch.cat([prefix, tail], 1))[:, 5:], **CLOSE)


@pytest.mark.parametrize("name", FAMILIES)
def test_family_takes_lora_in_its_blocks_alone(name):
    with torch.device("meta"):
        adapter = make(**{**FAMILIES[name], **LORA})
    linears = [m for b in adapter.modules() if isinstance(b, adapter.blocks) for m in b.modules() if hasattr(m, "lora_A")]
    assert len(trainable(adapter)) == 2 * len(linears) >= 16
    assert all("lora_" in n and "lm_head" not in n for n in trainable(adapter))


@pytest.mark.parametrize("name", ["mistral", "gemma2", "gemma3_text", "phi3"])
@torch.no_grad()
def test_a_window_is_kept(name):
    options = {**FAMILIES[name], "config": {**FAMILIES[name]["config"], "sliding_window": 6}}
    adapter = make(**options).eval()
    ids, cache = ids_of(1, 9), adapter.new_cache()
    full = adapter.model(input_ids=ids).logits
    torch.testing.assert_close(read(adapter, ids), full, **CLOSE)
    chunks = [adapter(adapter.embed(ids[:, i : i + 3]), span(1, i, i + 3), cache=cache) for i in (0, 3, 6)]
    torch.testing.assert_close(torch.cat(chunks, 1), full, **CLOSE)
    torch.testing.assert_close(read(adapter, ids, branch=torch.zeros_like(ids)), full, **CLOSE)


def test_full_trains_all_and_frozen_nothing():
    assert frozen(make()) == {}
    still = make(adaptation="frozen")
    assert trainable(still) == {}
    embeddings = still.embed(ids_of(1, 4)).requires_grad_()
    still(embeddings, span(1, 0, 4)).sum().backward()
    assert embeddings.grad.abs().sum() > 0


@pytest.mark.parametrize("variant", [{}, {"rslora": True}, {"dora": True}, {"lora_targets": ("q_proj", "v_proj")}])
def test_lora_starts_as_the_identity_and_trains_adapters_only(variant):
    plain, adapter = make().eval(), make(**LORA, **variant)
    ids = ids_of(4, 8)
    torch.testing.assert_close(read(adapter.eval(), ids), read(plain, ids), atol=1e-6, rtol=1e-5)
    before = {n: p.clone() for n, p in adapter.named_parameters()}
    optimizer = torch.optim.AdamW(trainable(adapter).values(), lr=1e-2)
    for _ in range(2):
        optimizer.zero_grad()
        loss_of(adapter.train(), ids).backward()
        optimizer.step()
    changed = {n for n, p in adapter.named_parameters() if not torch.equal(p, before[n])}
    assert changed == set(trainable(adapter))
    if "lora_targets" in variant:
        assert {n.split(".lora_")[0].rpartition(".")[2] for n in changed} == {"q_proj", "v_proj"}


def test_seven_billion_parameters_on_meta():
    with torch.device("meta"):
        adapter = make(config={"model_type": "llama", "intermediate_size": 11008}, adaptation="qlora")
    assert sum(p.numel() for p in frozen(adapter).values()) == 6_738_415_616
    assert sum(p.numel() for p in trainable(adapter).values()) == 32 * 128 * (4 * (4096 + 4096) + 3 * (4096 + 11008))


def test_blocks_of_a_model_with_a_vision_tower_are_the_decoders():
    tower = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28}
    config = {"model_type": "gemma3", "text_config": {**SIZES, "sliding_window": 16}, "vision_config": tower}
    with torch.device("meta"):
        adapter = make(config=config, **LORA)
    assert [b.__name__ for b in adapter.blocks] == ["Gemma3DecoderLayer"]
    assert all("language_model.layers" in n for n in trainable(adapter))


def test_lora_scale():
    scale = {r: make(**LORA, rslora=r).model.model.layers[0].mlp.up_proj.scaling["default"] for r in (False, True)}
    assert scale == {False: 8 / 4, True: 8 / 4**0.5}


def test_unknown_lora_target():
    with pytest.raises(ValueError, match=r"no linear map 'query' in the decoder blocks\. Known: down_proj, gate_proj, k_proj"):
        make(**LORA, lora_targets=("q_proj", "query"))


@pytest.mark.parametrize("options", [{}, LORA], ids=["full", "lora"])
def test_gradient_checkpointing_gives_the_same_gradients(options):
    gradients = []
    for checkpointing in (False, True):
        adapter = make(**options, gradient_checkpointing=checkpointing).train()
        embeddings = adapter.embed(ids_of(2, 6)).detach().requires_grad_()
        adapter(embeddings, span(2, 0, 6)).square().mean().backward()
        gradients.append([embeddings.grad, *(p.grad for p in trainable(adapter).values() if p.grad is not None)])
    assert len(gradients[0]) > 10
    torch.testing.assert_close(gradients[0], gradients[1], **CLOSE)


def test_checkpointing_leaves_frozen_embeddings_alone():
    assert not make(**LORA, gradient_checkpointing=True).embed(ids_of(1, 4)).requires_grad


def test_checkpointing_and_a_cache():
    adapter = make(gradient_checkpointing=True).train()
    with pytest.raises(RuntimeError, match=r"gradient checkpointing ignores the cache while training: call eval\(\)"):
        read(adapter, ids_of(1, 4), cache=adapter.new_cache())
    read(adapter.eval(), ids_of(1, 4), cache=adapter.new_cache())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_low_precision_base(dtype):
    adapter = make(**LORA, dtype=dtype)
    assert {p.dtype for p in frozen(adapter).values()} == {getattr(torch, dtype)}
    assert {p.dtype for p in trainable(adapter).values()} == {torch.float32}
    embeddings = torch.randn(1, 4, 32, requires_grad=True)  # as a projector in float32 gives them
    logits = adapter(embeddings, span(1, 0, 4))
    assert logits.dtype == torch.float32
    logits.sum().backward()
    assert embeddings.grad.isfinite().all()


@pytest.mark.parametrize("options", [{"adaptation": "qlora"}, {"quantization": "int8"}], ids=["qlora", "int8"])
def test_quantised_base_stays_and_adapters_learn(options):
    adapter = make(**{**LORA, **options, "config": {**FAMILIES["llama"]["config"], "hidden_size": 64, "head_dim": 16}}).train()
    ids = ids_of(4, 8)
    base = {n: b for n, b in adapter.state_dict().items() if "lora_" not in n}
    base = {n: b.clone() for n, b in base.items() if isinstance(b, torch.Tensor)}
    assert base["model.model.layers.0.mlp.up_proj.base_layer.weight"].dtype in (torch.uint8, torch.int8)
    assert base["model.lm_head.weight"].dtype == torch.float32
    adapters = {n: p.detach().clone() for n, p in trainable(adapter).items()}
    optimizer = torch.optim.AdamW(trainable(adapter).values(), lr=1e-2)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = loss_of(adapter, ids)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1
    after = adapter.state_dict()
    assert [n for n, b in base.items() if not torch.equal(b, after[n])] == []
    assert [n for n, p in trainable(adapter).items() if torch.equal(p, adapters[n])] == []


def test_nf4_is_double_quantised_and_close():
    import bitsandbytes

    plain, quantised = make().eval(), make(adaptation="frozen", quantization="nf4").eval()
    linear = quantised.model.model.layers[0].mlp.up_proj
    assert isinstance(linear, bitsandbytes.nn.Linear4bit)
    assert (linear.weight.quant_state.quant_type, linear.weight.quant_state.nested) == ("nf4", True)
    assert isinstance(quantised.model.lm_head, torch.nn.Linear)
    assert not isinstance(quantised.model.lm_head, bitsandbytes.nn.Linear4bit)
    a, b = read(plain, ids_of(2, 7)), read(quantised, ids_of(2, 7))
    assert 0 < (a - b).abs().mean() < 0.5 * a.std()


def test_nf4_gradients_are_the_same_after_an_inference():
    adapter, ids = make(**{**LORA, "adaptation": "qlora"}).train(), ids_of(2, 7)

    def gradient():
        embeddings = adapter.embed(ids).detach().requires_grad_()
        return torch.autograd.grad(adapter(embeddings, span(2, 0, 7)).square().sum(), embeddings)[0]

    before = gradient()
    with torch.no_grad():
        read(adapter.eval(), ids)
    adapter.train()
    torch.testing.assert_close(gradient(), before, **CLOSE)


def test_quantised_on_meta_counts_as_many_parameters():
    with torch.device("meta"):
        quantised, plain = make(**{**LORA, "adaptation": "qlora"}), make(**LORA)
    assert [(n, p.shape) for n, p in quantised.named_parameters()] == [(n, p.shape) for n, p in plain.named_parameters()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("hf") / "llama"
    adapter = make()
    adapter.model.save_pretrained(path)
    adapter.tokenizer.save_pretrained(path)
    return path


def copied(folder, path, change):
    path.mkdir()
    for file in folder.iterdir():
        (path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(path / "model.safetensors")
    change(tensors)
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    return str(path)


def test_folder_loads_back(folder):
    adapter, original = HFCausal(source=str(folder)), make()
    assert adapter.has_weights
    assert not original.has_weights
    assert all(p.is_meta for p in adapter.parameters())
    assert adapter.width == 32
    with pytest.raises(RuntimeError, match=r"have not been read: call load_pretrained\(\) first"):
        adapter.embed(ids_of(1, 4))
    adapter.load_pretrained()
    assert adapter.training
    assert adapter.model.training
    assert adapter.tokenizer("good")["input_ids"] == original.tokenizer("good")["input_ids"]
    torch.testing.assert_close(read(adapter, ids_of(2, 7)), read(original, ids_of(2, 7)), atol=0, rtol=0)
    with pytest.raises(RuntimeError, match="were read already; reading them again would undo training"):
        adapter.load_pretrained()


@pytest.mark.parametrize("options", [{**LORA, "adaptation": "qlora"}, {"adaptation": "frozen", "quantization": "int8"}, LORA])
def test_folder_adapts_as_the_same_weights_in_memory(folder, options):
    loaded = HFCausal(source=str(folder), **options).eval()
    loaded.load_pretrained()
    in_memory = make(**options).eval()
    assert not loaded.model.training
    assert list(trainable(loaded)) == list(trainable(in_memory))
    torch.testing.assert_close(read(loaded, ids_of(2, 7)), read(in_memory, ids_of(2, 7)), atol=0, rtol=0)


def test_a_stated_architecture_stands_before_its_folder_is_there(folder, tmp_path):
    stated = HFCausal(source=str(tmp_path / "later"), **FAMILIES["llama"], tokenizer="project")
    assert stated.model.device.type == "meta"
    loaded = HFCausal(source=str(folder), **FAMILIES["llama"])
    loaded.load_pretrained()
    ids = ids_of(1, 5)
    torch.testing.assert_close(read(loaded, ids), read(make(), ids), atol=0, rtol=0)


@pytest.mark.parametrize(("key", "value"), [("num_attention_heads", 2), ("rms_norm_eps", 0.5), ("vocab_size", 301)])
def test_a_stated_architecture_that_is_not_the_folders(folder, key, value):
    """Such weights would load and score wrongly: their shapes may be the same."""
    wrong = HFCausal(source=str(folder), config={**FAMILIES["llama"]["config"], key: value})
    with pytest.raises(ValueError, match=rf"is not of the architecture that `config` states \({key}: .* there, {value} here\)"):
        wrong.load_pretrained()


@pytest.mark.parametrize("options", [{"source": "models/not-there/llm"}, {"source": "models/not-there/llm", **FAMILIES["llama"]}])
def test_a_source_that_is_not_there(options):
    with pytest.raises(FileNotFoundError, match=r"models/not-there/llm: neither a folder with such a model .*prepare\.py import-seagull"):
        HFCausal(**options)


def test_folder_that_lacks_a_weight(folder, tmp_path):
    path = copied(folder, tmp_path / "lacking", lambda t: t.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(RuntimeError, match=r"1 weights of LlamaForCausalLM are missing, such as 'model.layers.1.mlp.up_proj.weight'"):
        HFCausal(source=path).load_pretrained()


def test_folder_that_has_a_weight_too_many(folder, tmp_path):
    path = copied(folder, tmp_path / "more", lambda t: t.update(extra=torch.zeros(2)))
    with pytest.raises(RuntimeError, match="1 weights of LlamaForCausalLM are unexpected, such as 'extra'"):
        HFCausal(source=path).load_pretrained()


def test_folder_without_safetensors(folder, tmp_path):
    path = copied(folder, tmp_path / "pickled", lambda t: None)
    torch.save(load_file(f"{path}/model.safetensors"), f"{path}/pytorch_model.bin")
    (tmp_path / "pickled" / "model.safetensors").unlink()
    with pytest.raises(OSError, match="safetensors"):
        HFCausal(source=path).load_pretrained()


def test_folder_quantised_already(folder, tmp_path):
    path = tmp_path / "nf4"
    make(adaptation="frozen", quantization="nf4").model.save_pretrained(path)
    with pytest.raises(ValueError, match="is quantised already: name its unquantised weights"):
        HFCausal(source=str(path), tokenizer="project")


def test_tied_embeddings_load(tmp_path):
    options = {"config": {**FAMILIES["qwen2"]["config"], "tie_word_embeddings": True}, "tokenizer": "project"}
    original = make(**options)
    original.model.save_pretrained(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    adapter = HFCausal(source=str(tmp_path), tokenizer="project")
    adapter.load_pretrained()
    assert adapter.model.lm_head.weight is adapter.model.get_input_embeddings().weight
    torch.testing.assert_close(read(adapter, ids_of(1, 5)), read(original, ids_of(1, 5)), atol=0, rtol=0)


def test_options_from_a_configuration_node():
    node = {"plugin": "hf_causal", **FAMILIES["qwen2"], "tokenizer": "project", **LORA, "lora_targets": ["q_proj"]}
    adapter = LLM_ADAPTERS.build(node)
    assert all(".q_proj." in n for n in trainable(adapter))


def test_rope_of_older_configurations_is_heard():
    adapter = make(config={**FAMILIES["llama"]["config"], "rope_theta": 5e5})
    assert adapter.model.config.rope_parameters["rope_theta"] == 5e5


def test_gemma_embeddings_are_scaled_once():
    adapter = make(**FAMILIES["gemma"])
    scaled = adapter.model.get_input_embeddings().weight[5] * 32**0.5
    torch.testing.assert_close(adapter.embed(torch.tensor(5)), scaled)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"config": None}, ValueError, "give source .a hub name or a folder., config .an architecture., or both; got neither"),
        ({"config": {"hidden_size": 8}}, ValueError, r"config needs the key 'model_type' .* got \['hidden_size'\]"),
        ({"config": {"model_type": "llama", "hiden_size": 8}}, ConfigError, "unknown key 'hiden_size'. Did you mean 'hidden_size'"),
        ({"config": {"model_type": "lama"}}, ValueError, "Unrecognized model identifier: lama"),
        ({"tokenizer": ""}, ValueError, "config names an architecture, not a tokenizer: set tokenizer to 'project'"),
        ({"adaptation": "full", "quantization": "nf4"}, ValueError, "'full' cannot train 'nf4' weights"),
        ({"adaptation": "full", "quantization": "int8"}, ValueError, "'full' cannot train 'int8' weights"),
        ({"adaptation": "qlora", "quantization": "int8"}, ValueError, "'qlora' is LoRA on nf4 weights: for int8"),
        ({"config": {**FAMILIES["gemma2"]["config"]}}, ValueError, "'gemma2' with attention 'sdpa': .*eager"),
        ({"config": {"model_type": "vit"}}, ValueError, "'vit' with attention 'sdpa': Unrecognized configuration class"),
    ],
)
def test_options_that_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        make(**options)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"model_type": "bloom", "n_layer": 2}, r"'bloom' cannot read packed rows: it takes positions from the columns \(alibi\)"),
        ({"model_type": "falcon", "alibi": True, "num_hidden_layers": 2}, r"'falcon' .* positions from the columns \(alibi\)"),
        ({"model_type": "qwen3_next", "num_hidden_layers": 4}, "its recurrent layers would carry one branch into the next"),
        ({"model_type": "gpt_neo", "num_layers": 2, "attention_types": [[["global", "local"], 1]]}, "no access to its attention"),
    ],
)
def test_architectures_that_cannot_read_packed_rows(config, reason):
    """They are refused where a row is packed, and only there."""
    with torch.device("meta"):
        adapter = make(config=config, attention="eager")
    with pytest.raises(ValueError, match=rf"{reason}.*Set model\.packing to none"):
        adapter.check_packed()
    embeddings, positions = torch.zeros(1, 3, adapter.width), span(1, 0, 3)
    with pytest.raises(ValueError, match=reason):
        adapter(embeddings, positions, torch.zeros(1, 3, dtype=torch.long))


def test_an_architecture_that_hears_no_mask(monkeypatch):
    monkeypatch.setattr(LlamaDecoderLayer, "forward", lambda self, hidden_states, **options: hidden_states)
    with pytest.raises(ValueError, match=r"not all of its layers look at what a mask says \(LlamaDecoderLayer\)"):
        make().check_packed()


def test_an_architecture_whose_layers_choke_on_the_mask():
    with pytest.raises(ValueError, match=r"'doge' cannot read packed rows: its layers do not take the mask of one \(AttributeError"):
        make(config={"model_type": "doge", **WITHOUT_HEAD_DIM}).check_packed()


def test_experts_are_looked_at_when_they_first_run(monkeypatch):
    """On the meta device, where weights are not yet, a family with experts cannot be tried."""
    config = {"model_type": "qwen3_moe", **WITHOUT_HEAD_DIM, "num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16}
    with torch.device("meta"):
        make(config=config).check_packed()
    monkeypatch.setattr(packable, "_tried", lambda model, blocks: None)
    read(make(config=config), ids_of(1, 4), branch=torch.tensor([[0, 0, 1, 2]]))
    monkeypatch.setattr(Qwen3MoeDecoderLayer, "forward", lambda self, hidden_states, **options: hidden_states)
    with pytest.raises(ValueError, match=r"not all of its layers look at what a mask says \(Qwen3MoeDecoderLayer\)"):
        read(make(config=config), ids_of(1, 4), branch=torch.tensor([[0, 0, 1, 2]]))


def test_an_architecture_that_keeps_no_cache():
    with torch.device("meta"), pytest.raises(ValueError, match="'xlnet' cannot be used: its forward does not read past_key_values"):
        make(config={"model_type": "xlnet", "n_layer": 2}, attention="eager")


def test_blocks_that_cannot_be_found():
    model = make().model
    model.config.num_hidden_layers = 7
    with pytest.raises(ValueError, match="LlamaForCausalLM has no list of 7 decoder blocks"):
        _decoder(model)


def test_branches_of_another_shape():
    adapter = make()
    with pytest.raises(ValueError, match=r"branch is \(1, 4\), expected \(B, T\) = \(2, 4\)"):
        read(adapter, ids_of(2, 4), branch=torch.zeros(1, 4, dtype=torch.long))


def test_tokenizer_of_another_size(tmp_path):
    project_tokenizer(("many words here",), 270).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has 270 tokens, the model 260 embeddings"):
        make(tokenizer=str(tmp_path), config={**FAMILIES["llama"]["config"], "vocab_size": 260})


def test_slow_tokenizer(monkeypatch):
    slow = PythonBackend.__new__(PythonBackend)
    monkeypatch.setattr("components.llm_adapters.hf_causal.AutoTokenizer.from_pretrained", lambda *_, **__: slow)
    with pytest.raises(ValueError, match="some/name has no fast tokenizer, got PythonBackend"):
        make(tokenizer="some/name")
