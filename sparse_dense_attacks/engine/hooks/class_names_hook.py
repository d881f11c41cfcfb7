"""Whether weights and data set number the classes alike."""
from mmengine.hooks import Hook

from ..class_names import check_class_names, names_in_checkpoint

__all__ = ['ClassNamesHook']


class ClassNamesHook(Hook):
    """Compares the class names of weights with those of a data set when the weights are loaded.

    Args:
        dataset: of the test run.
    """

    def __init__(self, dataset):
        self.dataset = dataset

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        check_class_names(names_in_checkpoint(checkpoint), self.dataset)
