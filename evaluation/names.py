"""Which entries of several data sets are one model: those of one name and one identity; the names of all others are made to differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from evaluation.entries import Entry


def tell_apart(groups: Mapping[str, Sequence[Entry]]) -> dict[str, list[Entry]]:
    """The entries of each data set; where models that are not the same share a name, it is followed by the folder that each lies in.

    Raises:
        ValueError: such models whose folders have one name as well, or are not known.
    """
    found: dict[str, dict[str | None, str]] = {}  # name -> identity -> where it lies
    for entry in (e for entries in groups.values() for e in entries):
        own = found.setdefault(entry.name, {})
        own[entry.identity] = own.get(entry.identity) or entry.origin
    names = {name: _apart(name, own) for name, own in found.items() if len(own) > 1}
    return {data: [replace(e, name=names[e.name][e.identity]) if e.name in names else e for e in own] for data, own in groups.items()}


def _apart(name: str, origins: Mapping[str | None, str]) -> dict[str | None, str]:
    places = list(origins.values())
    if "" in places or len(set(places)) < len(places):
        told = ", ".join(place or "of an unknown folder" for place in places)
        raise ValueError(
            f"{len(places)} different models are named {name!r} ({told}), and the tables go by names: rename a folder or a file, and "
            "measure again what was measured from it on other data"
        )
    return {identity: f"{name} ({place})" for identity, place in origins.items()}
