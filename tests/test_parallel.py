"""A file or two run in pytest's own process; the whole suite in two, the longest files first."""

from tests.parallel import FEW, LONGEST, WORKERS, place, threads, workers


def test_few_files_need_no_second_process(root):
    here = str(root / "tests" / "test_parallel.py")
    assert workers([here], 2) == workers([f"{here}::test_a", f"{here}::test_b"], 2) == 0
    assert workers([f"test_{i}.py" for i in range(FEW)], 8) == 0
    assert workers([f"test_{i}.py" for i in range(FEW + 1)], 8) == WORKERS
    assert workers([str(root / "tests")], 8) == WORKERS


def test_one_core_is_not_shared(root):
    assert workers([str(root / "tests")], 1) == 0


def test_processes_share_the_cores():
    assert [threads(c, 2) for c in (1, 2, 3, 8)] == [1, 1, 1, 4]


def test_the_longest_come_first_and_are_there(root):
    assert all((root / path).is_file() for path in LONGEST)
    files = ["tests/a/test_b.py", *reversed(LONGEST), "tests/a/test_a.py"]
    assert sorted(files, key=place) == [*LONGEST, "tests/a/test_b.py", "tests/a/test_a.py"]


def test_each_process_takes_whole_files(pytestconfig):
    """What the tests of a file share is made once, and their order is that of the file."""
    assert {"-n", "--dist", "loadfile", "--no-loadscope-reorder"} <= set(pytestconfig.getini("addopts"))
