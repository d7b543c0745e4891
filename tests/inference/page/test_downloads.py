"""Files of a visit go when it ends, and by their age where nobody says that it ended."""

import time

from inference.page.downloads import Downloads


def test_files_go_with_their_visit_or_by_age(tmp_path):
    now = [time.time()]
    downloads = Downloads(tmp_path, 3600, lambda: now[0])
    for key in ("worked on", "left", "evicted"):
        (downloads.of(key) / "regions.json").write_text("{}")
    downloads.forget("left")
    downloads.forget("never there")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["evicted", "worked on"]
    now[0] += 3000
    downloads.of("worked on")
    now[0] += 3000
    downloads.of("another")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["another", "worked on"]
    assert (tmp_path / "worked on" / "regions.json").read_text() == "{}"
