"""python app.py <model> [second model] [options]: a web page on which regions of pictures are chosen and scored.

python app.py outputs/quickstart
python app.py outputs/quickstart outputs/mine --port 8000
python app.py outputs/quickstart --mask-encoder sam model_type=vit_b checkpoint=sam_vit_b.pth

A model is a run's folder, a saved or imported model, or a name on the hub. Of two models the answers stand side by side. The page is
served to this machine alone unless --host says otherwise; docs/app.md describes what is kept, for how long, and the limits.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from components.mask_encoders.base import MASK_ENCODERS
from components.registry import ConfigError
from datamodules.alone import LOCK, alone
from inference.engine import MEMORY, load
from inference.page.limits import Limits
from inference.page.service import Service
from lightning_modules.entry import EntryParser, run_entry
from predict import options_of

PREFIX, FILES = "roi-iqa-", "files"  # of a page's temporary folder; what it holds for downloads
QUIET = {
    "GRADIO_ANALYTICS_ENABLED": "False",  # nothing is told to anybody
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "GRADIO_ANALYTICS_CACHE_FREQUENCY": str(10**9),  # nor counted after each event, for a page of statistics that is not served
}


def main(argv: Sequence[str] | None = None) -> None:
    """Serves the page until it is interrupted, or told to end."""
    with told_to_end(), Served(argv) as served:
        print(f"the page is at {served.url} (end with Ctrl-C)", flush=True)
        if not served.alone:
            print("it is open to everybody who reaches this machine, and there is no login: see docs/app.md", file=sys.stderr, flush=True)
        served.blocks.block_thread()


@contextmanager
def told_to_end() -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP leave what is inside in order, and end the process with the exit status that a shell reports of them.
    What is ignored (SIGHUP under nohup) stays so."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    told: list[int] = []

    def end(number: int, _: object) -> NoReturn:
        for each in before:
            signal.signal(each, signal.SIG_IGN)  # a second one would break off what is being tidied
        told.append(number)
        sys.exit()

    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, end)
    try:
        yield
    finally:
        if told:
            os._exit(128 + told[0])  # at once: a request that is still worked on would make its folder anew
        for number, handler in before.items():
            signal.signal(number, handler)


class Served:
    """The page while it is served, from construction to `close`; files of visitors are in a folder that goes with it.

    Attributes:
        url: where it is.
        alone: whether this machine alone can reach it.

    Raises:
        ConfigError: an option out of its range, a port that is taken, or Gradio is not installed.
    """

    def __init__(self, argv: Sequence[str] | None = None) -> None:
        args = _parser().parse_args(argv)
        limits = Limits(args.max_mb, args.max_pixels, args.max_regions, args.max_images, stored=args.max_stored)
        name, *options = args.mask_encoder
        encoder = MASK_ENCODERS.part({"plugin": name, **options_of(options)}, "--mask-encoder")
        check_port(args.host, args.port)
        self.alone = args.host == "localhost" or args.host.startswith("127.") or args.host == "::1"
        segmenter = encoder()
        segmenter.load_pretrained()
        chosen = {"segmenter": segmenter, "memory": args.memory, "compile": args.compile}
        models = {
            label: load(model, args.accelerator, quantization=args.quantization, grammar=args.grammar, **chosen)
            for label, model in labels(args.models).items()
        }
        self.service = Service(models, limits)
        remove_left()
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX))  # of this user alone
        try:
            self._lock = alone(self.folder)
            self.blocks, self.url = _serve(self.service, self.folder, args)
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stops serving, and removes what visitors left."""
        self.blocks.close(verbose=False)
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()


def remove_left() -> None:
    """Removes what pages left that were killed: folders of this user whose lock nobody holds."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):  # its page is there, or another that starts was first
            begun = (folder / LOCK).is_file() and (folder / FILES).is_dir()  # the second is made after the first is locked
            if begun and not folder.is_symlink() and folder.stat().st_uid == os.getuid():
                with alone(folder):
                    shutil.rmtree(folder)


def labels(models: Sequence[str]) -> dict[str, str]:
    """What the page calls each model -> the model: the last part of its name, with a letter where two are called alike."""
    names = [Path(model).resolve().name if Path(model).is_dir() else model for model in models]
    if len(set(names)) < len(names):
        names = [f"{letter}: {name}" for letter, name in zip("AB", names, strict=False)]
    return dict(zip(names, models, strict=True))


def check_port(host: str, port: int) -> None:
    """Raises ConfigError where nothing can be served at `port` of `host`."""
    if not 1 <= port <= 65535:
        raise ConfigError(f"--port {port}: a port is a number from 1 to 65535, for example --port 7860")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except PermissionError as error:
        raise ConfigError(f"--port {port}: this user may not serve there; take one above 1023, for example --port 7860") from error
    except OSError as error:
        raise ConfigError(
            f"--host {host} --port {port}: nothing can be served there ({error.strerror}). If another program, perhaps this page, uses the "
            f"port already, end it or take another one, for example --port {port + 1 if port < 65535 else port - 1}"
        ) from error


def _serve(service: Service, folder: Path, args: argparse.Namespace) -> tuple[Any, str]:
    os.environ.update(QUIET)
    os.environ["GRADIO_TEMP_DIR"] = str(folder / "cache")
    try:
        from inference.page import layout
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise ConfigError("the page needs the package gradio: pip install 'roi-iqa[app]'") from error
    from inference.page.examples import examples

    files = folder / FILES
    files.mkdir()
    blocks = layout.page(service, examples(), files)
    guarded = [str(Path(model).resolve()) for model in args.models if Path(model).is_dir()]
    url = layout.serve(blocks, args.host, args.port, service.limits, folder, guarded)
    return blocks, url


def _parser() -> argparse.ArgumentParser:
    default = Limits()
    parser = EntryParser(prog="app.py", description=__doc__)
    parser.add_argument(
        "models", nargs="+", action=_OneOrTwo, metavar="model", help="outputs/<run>, a saved model's folder, or user/name on the hub"
    )
    parser.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1, this machine alone; 0.0.0.0 is everybody in the network")
    parser.add_argument("--port", type=int, default=7860, help="default: 7860")
    parser.add_argument("--quantization", choices=("nf4", "int8"), default="", help="of language models from files")
    parser.add_argument(
        "--grammar",
        action=argparse.BooleanOptionalAction,
        help="answers in words are chosen among those that can be read, or given freely (default: as the models say)",
    )
    parser.add_argument(
        "--compile", nargs="?", const="inductor", default="", metavar="BACKEND", help="torch.compile of the vision encoders (inductor)"
    )
    parser.add_argument("--memory", type=float, default=MEMORY, metavar="MIB", help="for the regions of a map that are asked about at once")
    parser.add_argument("--accelerator", choices=("auto", "cpu", "gpu"), default="auto")
    parser.add_argument(
        "--mask-encoder",
        nargs="+",
        default=["superpixel"],
        metavar=("NAME", "key=value"),
        help="what makes a region of a click; default: superpixel",
    )
    limit = parser.add_argument_group("limits")
    limit.add_argument("--max-mb", type=float, default=default.megabytes, metavar="MB", help="of an upload (default: %(default)g)")
    limit.add_argument(
        "--max-pixels", type=int, default=default.pixels, metavar="N", help="of an image, width x height (default: %(default)s)"
    )
    limit.add_argument("--max-regions", type=int, default=default.regions, metavar="N", help="of an image (default: %(default)s)")
    limit.add_argument(
        "--max-images", type=int, default=default.images, metavar="N", help="that stay encoded at once (default: %(default)s)"
    )
    limit.add_argument(
        "--max-stored", type=float, default=default.stored, metavar="MB", help="of all visitors' files together (default: %(default)g)"
    )
    return parser


class _OneOrTwo(argparse.Action):
    """One model, or two to compare."""

    def __call__(self, parser: argparse.ArgumentParser, args: argparse.Namespace, value: Any, option: str | None = None) -> None:
        if len(value) > 2:
            parser.error(f"one model, or two to compare, got {len(value)}: {', '.join(value)}")
        setattr(args, self.dest, value)


if __name__ == "__main__":
    run_entry(main)
