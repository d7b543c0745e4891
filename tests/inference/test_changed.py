"""Options of use reach the model before its weights are read, and what cannot be is refused."""

import bitsandbytes
import PIL.Image
import pytest

import predict
from components.registry import ConfigError
from inference.changed import changed
from inference.engine import load
from inference.saved import About, save
from tests.components.scorers.samples import picture
from tests.inference.test_saved import built, llama, node_of

__all__ = ["llama"]


@pytest.fixture
def model(llama, tmp_path):
    node = node_of("roi_vlm", llm={"plugin": "hf_causal", "source": str(llama), "adaptation": "frozen"})
    node["readouts"] = {"quality": {"plugin": "levels"}, "distortion": {"plugin": "text", "grammar": False}}
    save(tmp_path / "m", built(node), node, About())
    return tmp_path / "m"


@pytest.mark.parametrize(("quantization", "kind"), [("nf4", bitsandbytes.nn.Linear4bit), ("int8", bitsandbytes.nn.Linear8bitLt)])
def test_a_finished_model_is_read_in_fewer_bits(model, quantization, kind):
    engine = load(model, "cpu", quantization=quantization)
    assert sum(isinstance(m, kind) for m in engine.scorer.llm.modules()) == 7
    assert not any(isinstance(m, kind) for m in load(model, "cpu").scorer.llm.modules())
    image, masks = picture(1)
    assert all(0 <= answer["quality"].value <= 1 for answer in engine.score(image, masks))


def test_predict_takes_the_options(model, tmp_path, monkeypatch):
    PIL.Image.fromarray(picture(1)[0].permute(1, 2, 0).numpy()).save(tmp_path / "a.png")
    seen, real = [], predict.Engine
    monkeypatch.setattr(predict, "Engine", lambda scorer, **options: seen.append((scorer, options["compile"])) or real(scorer, **options))
    predict.main([str(model), str(tmp_path / "a.png"), "--quantization", "nf4", "--compile", "eager", "--tasks", "quality"])
    ((scorer, backend),) = seen
    assert backend == "eager"
    assert any(isinstance(m, bitsandbytes.nn.Linear4bit) for m in scorer.llm.modules())


def test_every_answer_can_be_parsed_under_the_grammar(model):
    image, masks = picture(1)
    assert not any(answer["distortion"].parsed for answer in load(model, "cpu").score(image, masks))
    assert all(answer["distortion"].parsed for answer in load(model, "cpu", grammar=True).score(image, masks))


def test_predict_says_whether_answers_are_free(model, tmp_path):
    """A table of one sort is not gone on with as the other."""
    PIL.Image.fromarray(picture(1)[0].permute(1, 2, 0).numpy()).save(tmp_path / "a.png")
    asked, out = [str(model), str(tmp_path / "a.png"), "--tasks", "distortion"], ["--out", str(tmp_path / "s.csv")]
    for option, parsed in (([], False), (["--no-grammar"], False), (["--grammar"], True)):
        (row,) = predict.main([*asked, *option])["rows"]
        assert row["distortion"]["parsed"] is parsed
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predict.Output, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            predict.main([*asked, *out])
    with pytest.raises(FileExistsError, match="of another prediction"):
        predict.main([*asked, *out, "--grammar"])


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="quantization: got 'nf4', and pooled_mlp has no language model"):
        changed({"plugin": "pooled_mlp"}, "nf4")
    for llm in ({"plugin": "tiny_causal"}, {"plugin": "hf_causal", "source": "x", "adaptation": "full"}):
        with pytest.raises(ConfigError, match="has no weights in files of its own"):
            changed({"plugin": "roi_vlm", "llm": llm}, "int8")
    with pytest.raises(ConfigError, match="names no readout 'text'"):
        changed({"plugin": "roi_vlm", "readouts": {"quality": {"plugin": "levels"}}}, grammar=True)
