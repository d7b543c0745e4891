"""The page's entry and its server, without a browser: options, ports, and what can be read of the server's disk, which is nothing."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import bitsandbytes
import pytest
from gradio import processing_utils

import app
from components.registry import ConfigError
from datamodules.alone import LOCK
from inference.page.visit import Visit
from inference.saved import About, save
from tests.inference.page.models import encoded, photo, saved
from tests.inference.test_saved import built, llama, node_of

__all__ = ["llama"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture(scope="module")
def served(model):
    with app.Served([str(model), "--port", str(free_port())]) as found:
        yield found


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def asked(url, body=None, kind="application/json", more=None):
    """Status and text of an answer."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": kind, **(more or {})})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_port_that_is_none_is_refused(model, port):
    with pytest.raises(ConfigError, match=f"--port {port}: a port is a number from 1 to 65535"):
        app.main([str(model), "--port", str(port)])


def test_a_taken_port_is_refused_before_anything_is_read():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"nothing can be served there \(.*\). If another program.*for example --port {port + 1}"):
            app.main(["no/such/model", "--port", str(port)])


@pytest.mark.parametrize(("arguments", "said"), [(["a", "b", "c"], "one model, or two to compare, got 3"), ([], "required: model")])
def test_one_model_or_two(arguments, said, capsys):
    with pytest.raises(SystemExit):
        app.main(arguments)
    assert said in capsys.readouterr().err


def test_limits_and_mask_encoders_are_checked_first():
    with pytest.raises(ConfigError, match="--max-mb: got 0"):
        app.main(["no/such/model", "--max-mb", "0"])
    with pytest.raises(ConfigError, match="superpixle"):
        app.main(["no/such/model", "--mask-encoder", "superpixle"])
    with pytest.raises(FileNotFoundError, match="no such folder"):
        app.main(["no/such/model", "--port", str(free_port())])


def test_models_are_called_by_their_folders(tmp_path):
    for name in ("one/run", "two/run", "other"):
        (tmp_path / name).mkdir(parents=True)
    one, two, other = (str(tmp_path / name) for name in ("one/run", "two/run", "other"))
    assert app.labels([one, other]) == {"run": one, "other": other}
    assert app.labels([one, two]) == {"A: run": one, "B: run": two}
    assert app.labels(["user/name"]) == {"user/name": "user/name"}


def test_it_is_served_to_this_machine_alone(served):
    assert served.url.startswith("http://127.0.0.1:")
    status, text = asked(served.url)
    assert status == 200
    assert "fonts.googleapis" not in text


def uploaded(url, name, data):
    """The path that the server gives to an upload."""
    head = f'--edge\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\nContent-Type: application/octet-stream\r\n\r\n'
    status, text = asked(f"{url}gradio_api/upload", head.encode() + data + b"\r\n--edge--\r\n", "multipart/form-data; boundary=edge")
    assert status == 200
    return json.loads(text)[0]


def told(served, path, session):
    """What the server says of a path that a browser sends as its upload."""
    config = served.blocks.get_config_file()
    (upload,) = (c["id"] for c in config["components"] if c["props"].get("elem_id") == "roi-upload")
    (number,) = (d["id"] for d in config["dependencies"] if [upload, "upload"] in [list(t) for t in d["targets"]] and d["inputs"])
    sent = {"path": path, "meta": {"_type": "gradio.FileData"}}
    _, joined = asked(f"{served.url}gradio_api/queue/join", {"data": [sent, None], "fn_index": number, "session_hash": session})
    said = asked(f"{served.url}gradio_api/queue/data?session_hash={session}")[1] if "event_id" in joined else joined
    return said.replace(" ", "")


def test_files_of_visitors_and_examples_are_served(served):
    """What the tests below are refused is refused because of what they ask for."""
    (gallery,) = (c for c in served.blocks.get_config_file()["components"] if c["props"].get("elem_id") == "roi-examples")
    path = gallery["props"]["value"][0]["image"]["path"]
    assert asked(f"{served.url}gradio_api/file={path}")[0] == 200
    path = uploaded(served.url, "photo.png", encoded(photo()))
    assert asked(f"{served.url}gradio_api/file={path}")[0] == 200
    assert '"success":true' in told(served, path, "honest")


def test_no_file_of_the_server_can_be_read(served, model, root):
    for path in ("/etc/passwd", str(model / "config.json"), str(root / "README.md"), "../../../../etc/passwd", str(Path(app.__file__))):
        for form in ("gradio_api/file=", "file=", "gradio_api/stream/", "static/", "assets/"):
            status, text = asked(f"{served.url}{form}{path}")
            assert status in (403, 404, 405), (form, path)
            assert "root:" not in text
            assert "transformers" not in text
            assert str(root) not in text.replace(path, "")  # it is told nothing but what it asked for


def test_a_path_does_not_pass_for_an_upload(served, root):
    """What a browser would send after an upload, with a path of the server instead."""
    said = told(served, "/etc/passwd", "forged")
    assert '"success":true' not in said
    assert "root:" not in said
    assert str(root) not in said
    assert str(served.folder) not in said


@pytest.mark.parametrize(
    "address", ["https://example.org/a.png", "HTTP://example.org/a.png", "http://127.0.0.1:1/a.png", "ftp://example.org/a.png"]
)
def test_no_address_that_a_visitor_sends_is_fetched(served, address, monkeypatch):
    fetched = []
    monkeypatch.setattr(processing_utils, "async_ssrf_protected_download", lambda url, **_: fetched.append(url))
    monkeypatch.setattr(processing_utils, "async_ssrf_protected_get", lambda url, *_, **__: fetched.append(url))
    said = told(served, address, f"address-{len(address)}")
    assert '"success":true' not in said
    assert fetched == []


def test_a_painting_of_any_number_of_layers_is_refused(served):
    (canvas,) = (c["id"] for c in served.blocks.get_config_file()["components"] if c["props"].get("elem_id") == "roi-canvas")
    fields = {"type": "layer", "index": "1000000000", "id": "a", "component_id": canvas, "session_hash": "s", "fn_name": "accept_blobs"}
    parts = [f'--edge\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n' for k, v in fields.items()]
    parts.append('--edge\r\nContent-Disposition: form-data; name="file"; filename="blob"\r\n\r\nx\r\n--edge--\r\n')
    status, text = asked(f"{served.url}gradio_api/component_server", "".join(parts).encode(), "multipart/form-data; boundary=edge")
    assert (status, "sent as an upload" in text) == (404, True)


def numbers(served):
    """Of the page's events, by the function that each calls."""
    return {fn.name: number for number, fn in served.blocks.fns.items()}


def joined(served, name, session, given=(None,)):
    """Asks for an event, and does not wait for it: status and text."""
    return asked(f"{served.url}gradio_api/queue/join", {"data": given, "fn_index": numbers(served)[name], "session_hash": session})


def heard(served, session):
    """Waits for all that a session has asked for."""
    return asked(f"{served.url}gradio_api/queue/data?session_hash={session}")[1]


@pytest.fixture
def visitors(served):
    """Sessions that have opened a picture."""

    def opened(*sessions):
        path = uploaded(served.url, "photo.png", encoded(photo()))
        for session in sessions:
            assert '"success":true' in told(served, path, session)

    return opened


class Held:
    """Stands before functions of the service: whoever comes waits until it is let go, and the most that wait at a time are counted."""

    def __init__(self):
        self.inside, self.most, self.turn, self.free = 0, 0, threading.Condition(), False

    def __call__(self, do):
        def held(*args):
            with self.turn:
                self.inside += 1
                self.most = max(self.most, self.inside)
                self.turn.notify_all()
                self.turn.wait_for(lambda: self.free, 60)
                self.inside -= 1
            return do(*args)

        return held

    def let_go(self):
        with self.turn:
            self.free = True
            self.turn.notify_all()

    def wait_for(self, count):
        """Until so many are held, and a moment longer, in which one more would come."""
        with self.turn:
            assert self.turn.wait_for(lambda: self.inside >= count, 60)
        time.sleep(0.3)


def test_every_event_is_in_one_of_two_groups(served):
    groups = {fn.name: fn.concurrency_id for fn in served.blocks.fns.values()}
    asking = {"_looked", "_clicked", "_painted", "_masked", "_wholly", "_undone", "_cleared", "_mapped"}
    assert {name for name, group in groups.items() if group == "model"} == asking
    assert {group for name, group in groups.items() if name not in asking} == {"page"}


def test_two_requests_are_worked_on_at_once_whatever_they_ask(served, visitors, monkeypatch):
    sessions = [f"group-{n}" for n in range(6)]
    visitors(*sessions)
    service, held, quick = served.service, Held(), Held()
    for name in ("whole", "map", "look"):
        monkeypatch.setattr(service, name, held(getattr(service, name)))
    for name, session in zip(("_wholly", "_mapped", "_looked") * 2, sessions, strict=True):
        assert joined(served, name, session)[0] == 200
    held.wait_for(2)
    for name in ("picture", "open"):  # others are not kept waiting
        monkeypatch.setattr(service, name, quick(getattr(service, name)))
    sent = {"path": uploaded(served.url, "photo.png", encoded(photo())), "meta": {"_type": "gradio.FileData"}}
    for session in sessions[:2]:
        assert joined(served, "_chosen", session, [None, "Box"])[0] == 200
    for session in sessions[2:4]:
        assert joined(served, "_opened", session, [sent, None])[0] == 200
    quick.wait_for(2)
    quick.let_go()
    held.let_go()
    assert all(heard(served, session).count('"success":true') >= 1 for session in sessions)
    assert (held.most, quick.most) == (2, 2)


def test_the_thirty_third_that_would_wait_is_refused(served, visitors, monkeypatch):
    visitors("crowd")
    held = Held()
    monkeypatch.setattr(served.service, "look", held(served.service.look))
    for _ in range(2):
        assert joined(served, "_looked", "crowd")[0] == 200
    held.wait_for(2)
    assert [joined(served, "_looked", "crowd")[0] for _ in range(32)] == [200] * 32
    assert joined(served, "_looked", "crowd")[0] == 503
    held.let_go()
    assert heard(served, "crowd").count('"success":true') == 34
    assert joined(served, "_looked", "crowd")[0] == 200  # there is room again


@pytest.fixture
def quantisable(llama, tmp_path):
    """A saved model whose language model lies in files, and which answers freely."""
    node = node_of("roi_vlm", llm={"plugin": "hf_causal", "source": str(llama), "adaptation": "frozen"})
    node["readouts"] = {"quality": {"plugin": "levels"}, "distortion": {"plugin": "text", "grammar": False}}
    save(tmp_path / "m", built(node), node, About())
    return tmp_path / "m"


@pytest.mark.parametrize(("said", "kind"), [("nf4", bitsandbytes.nn.Linear4bit), ("int8", bitsandbytes.nn.Linear8bitLt)])
def test_models_are_served_in_fewer_bits(quantisable, said, kind):
    with app.Served([str(quantisable), str(quantisable), "--port", str(free_port()), "--quantization", said]) as served:
        for engine in served.service.engines:
            assert sum(isinstance(m, kind) for m in engine.scorer.llm.modules()) == 7
        marked = served.service.whole(Visit("photo.png", photo()))
    assert all(0 <= row.scores["quality"].value <= 1 for row in marked.rows)


def test_options_reach_every_model(quantisable):
    asked = ["--grammar", "--compile", "eager", "--memory", "12"]
    with app.Served([str(quantisable), str(quantisable), "--port", str(free_port()), *asked]) as served:
        for engine in served.service.engines:
            assert engine.memory == 12
            assert engine.scorer.vision_encoder._compiled_call_impl is not None
            assert engine.scorer.readouts["distortion"].grammar


def test_bits_that_are_none_or_not_the_models_are_refused(model, quantisable, capsys):
    with pytest.raises(SystemExit):
        app.main([str(quantisable), "--quantization", "int4"])
    assert "invalid choice: 'int4'" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"quantization: got 'nf4', and this language model \(tiny_causal\) has no weights in files"):
        app.main([str(model), "--quantization", "nf4", "--port", str(free_port())])


def test_an_upload_that_is_too_large_is_refused_before_it_is_sent(served):
    connection = http.client.HTTPConnection(urlsplit(served.url).netloc, timeout=60)
    connection.putrequest("POST", "/gradio_api/upload")
    connection.putheader("Content-Length", str(20_100_001))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


def test_an_upload_from_the_page_of_another_site_is_refused(served):
    body = b'--edge\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\nx\r\n--edge--\r\n'
    address, kind = f"{served.url}gradio_api/upload", "multipart/form-data; boundary=edge"
    assert [asked(address, body, kind, {"Sec-Fetch-Site": site})[0] for site in ("cross-site", "same-origin")] == [403, 200]


def test_what_visitors_left_goes_with_the_server(model, tmp_path, monkeypatch):
    """And with the next one's start what one left that was killed."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    killed, other = tmp_path / "roi-iqa-killed", tmp_path / "roi-iqa-other"
    for folder in (killed, other):
        (folder / "files").mkdir(parents=True)
    (killed / LOCK).touch()
    with app.Served([str(model), "--port", str(free_port())]) as served:
        assert served.folder.stat().st_mode & 0o077 == 0
        assert sorted(tmp_path.iterdir()) == sorted([other, served.folder])
        app.remove_left()
        assert served.folder.exists()  # its page is there
    assert list(tmp_path.iterdir()) == [other]


def test_a_page_that_is_told_to_end_leaves_nothing(model, root, tmp_path):
    port = free_port()
    command = [sys.executable, str(root / "app.py"), str(model), "--port", str(port), "--accelerator", "cpu"]
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert f"http://127.0.0.1:{port}/" in process.stdout.readline()
        path = Path(uploaded(f"http://127.0.0.1:{port}/", "photo.png", encoded(photo())))
        assert path.is_relative_to(tmp_path)
        assert path.exists()
        process.terminate()
        assert process.wait(60) == 128 + signal.SIGTERM
    assert list(tmp_path.glob("roi-iqa-*")) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_other_ways_to_end_it_and_nohup(number, monkeypatch):
    ended, before = [], signal.signal(number, signal.SIG_DFL)  # who starts the tests may ignore it
    monkeypatch.setattr(os, "_exit", ended.append)
    try:
        with pytest.raises(SystemExit), app.told_to_end():
            signal.raise_signal(number)
        assert (ended, signal.getsignal(number)) == ([128 + number], signal.SIG_DFL)
        signal.signal(number, signal.SIG_IGN)
        with app.told_to_end():
            signal.raise_signal(number)
    finally:
        signal.signal(number, before)
    assert len(ended) == 1
