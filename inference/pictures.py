"""The pictures of a prediction, drawn beside the scoring: matplotlib and Python would else keep the model waiting between two images."""

from __future__ import annotations

import logging
import signal
import traceback
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from components.tasks import Task
from datamodules.apart import context, cores, end_with_parent, program_left_out
from datamodules.engines.base import EngineError
from inference import draw
from inference.quality_map import QualityMap, draw_map
from inference.rows import Seen

Sort = Literal["overlay", "map"]
FEW = 8  # images whose pictures are drawn in their turn: a process takes about as long to start
_AHEAD = 2  # images a process: one that is drawn, one that waits
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Drawn:
    """What became of an image's pictures.

    Attributes:
        sorts: those that were drawn.
        error: what went wrong with the others, "" if nothing. trace: its traceback.
    """

    sorts: tuple[Sort, ...] = ()
    error: str = ""
    trace: str = ""


class Pictures:
    """Draws what has been scored.

    Args:
        places: sort of picture -> image's name -> file.
        tasks: what was asked.
        workers: processes that draw; 0 draws each picture in its turn.

    Attributes:
        drawn: sort of picture -> images that have one. undrawn: images of which a picture could not be drawn.
    """

    def __init__(self, places: Mapping[Sort, Mapping[str, Path]], tasks: Sequence[Task], workers: int = 0) -> None:
        self.places, self.tasks, self.workers = places, tuple(tasks), workers
        self.undrawn, self.drawn = 0, Counter[str]()

    def of(self, found: Iterable[Seen]) -> Iterator[tuple[Seen, Drawn]]:
        """What was scored, in its order, each once its pictures are there, with what became of them.

        Raises:
            EngineError: a process that draws was killed.
        """
        if not self.workers or not self.places:
            for seen in found:
                yield self._told(seen, _drawn(seen, self._wanted(seen), self.tasks))
            return
        pool = ProcessPoolExecutor(self.workers, context(__name__), _begin)
        waiting: deque[tuple[Seen, Future[Drawn]]] = deque()
        try:
            for seen in found:
                with program_left_out():
                    waiting.append((seen, pool.submit(_drawn, seen, self._wanted(seen), self.tasks)))
                while waiting and (len(waiting) > _AHEAD * self.workers or waiting[0][1].done()):
                    first, drawn = waiting.popleft()
                    yield self._told(first, drawn.result())
            for first, drawn in waiting:
                yield self._told(first, drawn.result())
        except BrokenProcessPool as error:
            raise EngineError(
                f"one of {self.workers} processes that draw pictures was killed, most often for want of memory: what is drawn is kept, "
                "give the same line again"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)

    def _wanted(self, seen: Seen) -> list[tuple[Sort, Path]]:
        return [(sort, files[seen.request.name]) for sort, files in self.places.items()]

    def _told(self, seen: Seen, drawn: Drawn) -> tuple[Seen, Drawn]:
        self.drawn.update(drawn.sorts)
        if drawn.error:
            self.undrawn += 1
            _LOG.error("%s", drawn.trace)
        return seen, drawn


def drawers(images: int) -> int:
    """Processes that draw the pictures of so many images: two on four cores or more, none on a single one, nor for a few images."""
    return 0 if images < FEW else min(2, cores() // 2)


def places(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    """Where the picture of each image goes: `folder` itself, where it is a file's name, or below it under the image's own path, as PNG."""
    if folder.suffix:
        return dict.fromkeys(names, folder)
    inside = {name: Path(*(part for part in Path(name).parts if part not in ("..", Path(name).anchor))) for name in names}
    plain = Counter(path.with_suffix(".png") for path in inside.values())
    out: dict[str, Path] = {}
    taken: set[Path] = set()
    for name, path in inside.items():
        alone = [path.with_suffix(".png")] if plain[path.with_suffix(".png")] == 1 else []
        spots = [*alone, path.with_name(f"{path.name}.png"), *(path.with_name(f"{path.name}.{n}.png") for n in range(2, len(names) + 2))]
        place = next(spot for spot in spots if spot not in taken)
        taken.add(place)
        out[name] = folder / place
    return out


def _begin() -> None:
    """A process's first act. Ctrl-C, which reaches it as well, is for the program to answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


def _drawn(seen: Seen, wanted: Sequence[tuple[Sort, Path]], tasks: Sequence[Task]) -> Drawn:
    """Draws an image's pictures; one that fails costs no other."""
    drawn, errors, traces = list[Sort](), list[str](), list[str]()
    for sort, path in wanted:
        try:
            if (_overlay if sort == "overlay" else _map)(seen, path, tasks):
                drawn.append(sort)
        except Exception as error:
            errors.append(f"its {sort} could not be drawn: {type(error).__name__}: {error}")
            traces.append(traceback.format_exc())
    return Drawn(tuple(drawn), f"{seen.request.name}: {'; '.join(errors)}" if errors else "", "\n".join(traces))


def _overlay(seen: Seen, path: Path, tasks: Sequence[Task]) -> bool:
    """Whether there was anything to draw."""
    scored = [row for row in seen.rows if not row.error]
    if seen.image is None or not scored:
        return False
    draw.save(draw.draw(seen.image, seen.codes, scored, tasks), path)
    return True


def _map(seen: Seen, path: Path, tasks: Sequence[Task]) -> bool:
    """Whether there was anything to draw."""
    scored = [row for row in seen.rows if not row.error]
    found = [(code, row.scores) for row, code in zip(scored, seen.codes, strict=True) if row.kind == "proposed"]
    if seen.image is None or not found:
        return False
    codes, scores = zip(*found, strict=True)
    draw.save(draw_map(QualityMap(seen.image, codes, scores)), path)
    return True
