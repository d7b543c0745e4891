from benchmarks import statistics


def test_the_times_are_taken_and_ties_equal_scipy(capsys):
    found = statistics.speed(regions=2000, drawn=200, draws=5)
    assert found.pop("apart") < 1e-12
    assert len(found) == 6
    assert all(0 < seconds < 60 for seconds in found.values())
    said = capsys.readouterr().out
    assert "SRCC, PLCC, KRCC and RMSE of 2,000 regions" in said
    assert "SRCC within each of 61 images" in said
    assert "bootstrap of SRCC, 5 draws, 200 regions, five models" in said
    assert "of all 7 statistics of a score" in said


def test_a_wrong_number_is_seen(monkeypatch):
    monkeypatch.setattr(statistics, "krcc", lambda *_: 0.5)
    assert statistics.levels_apart(400) > 1e-3
