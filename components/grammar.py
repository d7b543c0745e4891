"""The well-formed answers to a question, as a tree of ids that is grown while it is walked.

An answer about distortions is open-ended: a list of (severity, type) that may go on after each pair. So a state of the grammar is the list
so far, and its candidates are the answer that ends there and those with one pair more; the candidates of a state share their beginning.
"""

from __future__ import annotations

import functools
from collections.abc import Generator

from components.prompts import DISTORTION_TYPES, LEVELS, SEVERITIES, Dialogue, say_distortions, say_level
from components.readouts.base import Heard, Say
from components.tasks import Distortions, Task


class Grammar:
    """The answers to `task` in the ids of `dialogue`."""

    def __init__(self, dialogue: Dialogue, task: Task) -> None:
        self.dialogue, self.task = dialogue, task

    def check(self) -> None:
        """Raises ValueError where this tokenizer does not let an answer be chosen id by id."""
        some = ((DISTORTION_TYPES[0], SEVERITIES[0]),)
        self._candidates(())
        if self.task == "distortion":
            self._candidates(some)

    def spell(self) -> Generator[Say, Heard, str]:
        """Walks the tree by the model's preference among the ids that are allowed; ids without an alternative are said unheard."""
        said: tuple[int, ...] = ()
        told = 0  # of `said`, how much the model has read
        candidates = self._candidates(())
        while True:
            if len(candidates) == 1:
                ((text, pairs),) = candidates.values()
                if pairs is None:
                    return text
                candidates = self._candidates(pairs)
                if any(other[: len(said)] != said for other in candidates):
                    raise ValueError(_MERGES.format(text=text))
                continue
            allowed = sorted({ids[len(said)] for ids in candidates})
            if len(allowed) > 1:
                heard = yield Say(said[told:], tuple(allowed))
                told, following = len(said), heard.best
            else:
                following = allowed[0]
            said = (*said, following)
            candidates = {ids: state for ids, state in candidates.items() if ids[len(said) - 1] == following}

    @functools.cache  # noqa: B019 - a grammar lives as long as its model
    def _candidates(self, pairs: Distortions) -> dict[tuple[int, ...], tuple[str, Distortions | None]]:
        """ids of a whole answer -> its text, and the state that choosing it leads to; None where nothing can follow.

        Raises:
            ValueError: two answers have the same ids.
        """
        states: dict[str, Distortions | None] = {}
        if self.task == "distortion":
            states[say_distortions(pairs)] = None
            left = [kind for kind in DISTORTION_TYPES if kind not in {kind for kind, _ in pairs}]
            states |= {say_distortions(more): more for kind in left for severity in SEVERITIES for more in [(*pairs, (kind, severity))]}
        else:
            states |= dict.fromkeys((say_level(self.task, level) for level in range(len(LEVELS[self.task]))), None)
        found: dict[tuple[int, ...], tuple[str, Distortions | None]] = {}
        for text, state in states.items():
            ids = self.dialogue.answer(self.task, text)
            if ids in found:
                raise ValueError(_MERGES.format(text=text))
            found[ids] = (text, state)
        return found


_MERGES = (
    "this tokenizer says the answer {text!r} in ids that depend on what comes after, or that another answer has too: "
    "set grammar to false, or use another tokenizer"
)
