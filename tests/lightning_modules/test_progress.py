"""A training that goes on shows how much is left, and the rate of this attempt."""

from types import SimpleNamespace

from lightning_modules.progress import Progress


def test_a_bar_starts_where_the_training_stands(capsys):
    bar = Progress()
    trainer = SimpleNamespace(global_step=3, accumulate_grad_batches=2, num_training_batches=10, current_epoch=0, is_global_zero=True)
    bar._trainer = trainer
    bar.on_train_start(trainer, None)
    found = bar.train_progress_bar.format_dict
    assert (found["initial"], found["n"], found["total"]) == (6, 6, 10)
    bar.train_progress_bar.close()
    assert "6/10" in capsys.readouterr().out


def test_a_bar_shows_the_loss_and_no_loggers_version():
    logger = SimpleNamespace(version="tensorboard")
    trainer = SimpleNamespace(loggers=[logger], logger=logger, progress_bar_metrics={"loss": 1.5})
    assert Progress().get_metrics(trainer, None) == {"loss": 1.5}
