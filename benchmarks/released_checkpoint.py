"""python benchmarks/released_checkpoint.py <scratch folder>: the released checkpoint at full size, brought here and written back.

Makes a folder of the 742 tensors in their true shapes (14.1 GB of random numbers), imports it, exports it again, and compares every
tensor bit by bit. Prints the time of each step as a multiple of copying the same files, and the peak memory of import and export.
Needs 45 GB of disk; removes what it made.
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "components" / "released")]


def make(folder: Path) -> None:
    """The synthetic released folder, one shard in memory at a time."""
    from official import INDEX, PIECES, SHARDS, table, write_pieces

    from configs.schema import load_model

    folder.mkdir(parents=True)
    rows = table()
    names = list(rows)
    sizes = {n: torch.Size(shape).numel() * dtype.itemsize for n, (shape, dtype) in rows.items()}
    place, used = {}, 0
    for name in names:
        used += sizes[name]
        place[name] = SHARDS[used > 9.98e9]
    generator = torch.Generator().manual_seed(7)
    for shard in SHARDS:
        state = {}
        for name in names:
            if place[name] == shard:
                shape, dtype = rows[name]
                state[name] = torch.randint(-(2**14), 2**14, shape, generator=generator, dtype=torch.int16).view(torch.float16).to(dtype)
        torch.save(state, folder / shard)
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": sum(sizes.values())}, "weight_map": place}))
    told = {k: v for k, v in load_model("model/seagull_7b")["llm"]["config"].items() if k != "model_type"}
    (folder / "config.json").write_text(json.dumps({"architectures": ["OspreyLlamaForCausalLM"], "model_type": "seagull", **told}))
    (folder / "added_tokens.json").write_text(json.dumps({"<global>": PIECES, "<local>": PIECES + 1}))
    write_pieces(folder / "tokenizer.model")


def timed(*command: str) -> float:
    """Seconds that a command took."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def peak() -> float:
    """GB, of the children so far."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9


def main(scratch: Path) -> None:
    """See the module."""
    from components.released.shards import Shards

    there, ours, back, copy = (scratch / name for name in ("official", "ours", "back", "copy"))
    try:
        make(there)
        start = time.perf_counter()
        shutil.copytree(there, copy)
        copied = time.perf_counter() - start
        shutil.rmtree(copy)
        imported = timed("prepare.py", "import-seagull", str(there), str(ours))
        print(f"import {imported:.0f} s, {imported / copied:.1f} x a copy, peak {peak():.1f} GB", flush=True)
        exported = timed("prepare.py", "export-seagull", str(ours), str(back))
        print(f"export {exported:.0f} s, {exported / copied:.1f} x a copy, peak of both {peak():.1f} GB", flush=True)
        first, second = Shards(there), Shards(back)
        assert list(first)
        assert set(first) == set(second)
        for name in first:
            a, b = first[name], second[name]
            if a.dtype != b.dtype or a.shape != b.shape or not torch.equal(a.view(torch.uint8), b.view(torch.uint8)):
                raise SystemExit(f"{name} differs")
        print(f"{len(first)} tensors, {sum(x.numel() * x.element_size() for x in first.values()):,} bytes: equal bit by bit")
    finally:
        for folder in (there, ours, back, copy):
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]))
