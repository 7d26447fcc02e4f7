# Copyright (c) mmscale contributors.
"""What MMEngine leaves out when it resumes a training: the validation that was interrupted."""

from pathlib import Path

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import EpochBasedTrainLoop, Runner

LAST_VALIDATION = 'last_validation'


class InterruptedValidationHook(Hook):
    """Validates the epoch from which a run is resumed, if that was due and did not come to its end.

    MMEngine writes the checkpoint of an epoch before it validates it. A run that is killed in the
    validation would go on with the next epoch: the epoch could never be the best, and the last one
    would have no result. Which epoch was validated last stands in a file of the work directory.
    """

    priority = 'LOWEST'  # what saves the best checkpoint must be ready

    def before_train(self, runner: Runner) -> None:
        loop, epoch = runner.train_loop, runner.epoch
        path = Path(runner.work_dir) / LAST_VALIDATION
        if epoch == 0 and is_main_process():
            path.unlink(missing_ok=True)  # of another run
        if epoch == 0 or runner.val_loop is None or not isinstance(loop, EpochBasedTrainLoop):
            return
        is_last = epoch == runner.max_epochs
        if epoch < loop.val_begin or not (is_last or epoch % loop.val_interval == 0):
            return
        is_missing = [not path.is_file() or path.read_text(encoding='utf-8') != str(epoch)]
        broadcast_object_list(is_missing)  # one decision for all processes
        if is_missing[0]:
            runner.logger.info(f'The validation of epoch {epoch} was interrupted, and is made now')
            # A checkpoint hook that has saved none yet would not write down what is the best.
            for hook in runner.hooks:
                if isinstance(hook, CheckpointHook) and hook.last_ckpt is None:
                    hook.last_ckpt = runner.message_hub.get_info('last_ckpt')
            runner.val_loop.run()

    def after_val_epoch(self, runner: Runner, metrics=None) -> None:
        if is_main_process():
            path = Path(runner.work_dir) / LAST_VALIDATION
            path.write_text(str(runner.epoch), encoding='utf-8')
