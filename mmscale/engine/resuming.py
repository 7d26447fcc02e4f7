# Copyright (c) mmscale contributors.
"""Repeat the interrupted validation of a resumed training, which MMEngine leaves out."""

from pathlib import Path

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import EpochBasedTrainLoop, Runner

LAST_VALIDATION = 'last_validation'


class InterruptedValidationHook(Hook):
    """A hook that validates the epoch of the resumed checkpoint if its validation did not finish.

    MMEngine writes the checkpoint of an epoch before the validation. A run that was killed in the
    validation would resume with the next epoch: the epoch could never be the best epoch, and a last
    epoch would have no result. A file of the work directory holds the last validated epoch.
    """

    priority = 'LOWEST'  # the hook that saves the best checkpoint must be ready

    def before_train(self, runner: Runner) -> None:
        loop, epoch = runner.train_loop, runner.epoch
        path = Path(runner.work_dir) / LAST_VALIDATION
        if epoch == 0 and is_main_process():
            path.unlink(missing_ok=True)  # the file is of another run
        if epoch == 0 or runner.val_loop is None or not isinstance(loop, EpochBasedTrainLoop):
            return
        is_last = epoch == runner.max_epochs
        if epoch < loop.val_begin or not (is_last or epoch % loop.val_interval == 0):
            return
        is_missing = [not path.is_file() or path.read_text(encoding='utf-8') != str(epoch)]
        broadcast_object_list(is_missing)  # one decision for all processes
        if is_missing[0]:
            runner.logger.info(f'The validation of epoch {epoch} was interrupted, and is made now')
            # A checkpoint hook without a last checkpoint would not record the best checkpoint.
            for hook in runner.hooks:
                if isinstance(hook, CheckpointHook) and hook.last_ckpt is None:
                    hook.last_ckpt = runner.message_hub.get_info('last_ckpt')
            runner.val_loop.run()

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        if is_main_process():
            path = Path(runner.work_dir) / LAST_VALIDATION
            path.write_text(str(runner.epoch), encoding='utf-8')
