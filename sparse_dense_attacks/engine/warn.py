"""Warnings that people should see, whatever the level of the log."""
from mmengine.dist import is_main_process

from .. import screen

__all__ = ['warn']


def warn(text: str) -> None:
    """One line on stderr, from the main process only."""
    if is_main_process():
        screen.say(f'warning: {text}')
