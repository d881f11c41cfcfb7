"""Warnings that people should see, whatever the level of the log."""
from mmengine.dist import is_main_process
from rich.console import Console

__all__ = ['warn']


def warn(text: str) -> None:
    """One line on stderr, from the main process only."""
    if is_main_process():
        console = Console(stderr=True, soft_wrap=True, highlight=False)
        console.print(f'warning: {text}', style='yellow', markup=False)
