"""Only what a comparison wrote is removed."""

from evaluation.place import COMPARISON, remove


def test_files_that_no_comparison_is_beside_stay(tmp_path):
    for name in COMPARISON[1:]:
        (tmp_path / name).write_text("somebody's own")
    remove(tmp_path, COMPARISON)
    assert {p.name for p in tmp_path.iterdir()} == {*COMPARISON[1:]}
    (tmp_path / COMPARISON[0]).write_text("{}")
    (tmp_path / "else.txt").write_text("")
    remove(tmp_path, COMPARISON)
    assert [p.name for p in tmp_path.iterdir()] == ["else.txt"]
