"""What a learned patch and a grey one do over the size, the distance, the angle and the brightness."""
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ['draw_judged']

LABELS = dict(scale='size (factor)', rotation='rotation (degrees)', brightness='brightness (added)',
              gap="distance (share of the object's diagonal)")


def draw_judged(path: Path, found: Mapping[str, Mapping[str, Any]],
                curves: Mapping[str, Sequence[float]]) -> None:
    """A panel for each curve.

    Detectors are drawn by their average precision at an overlap of one half, others by the share of
    the answer that stays as it is on the clean image.

    Args:
        path: where the picture goes.
        found: numbers of each version; those of the curves are called '<curve> <value> <content>'.
        curves: values by curve.
    """
    from matplotlib.figure import Figure  # not pyplot, which would choose a window system

    figure = Figure(figsize=(4 * len(curves), 3.4), layout='constrained')
    panels = figure.subplots(1, len(curves), squeeze=False, sharey=True)[0]
    detector = 'AP_50' in found['clean']
    for axes, (name, values) in zip(panels, curves.items(), strict=True):
        for content, style in (('grey', 'C7--'), ('learned', 'C3-')):
            versions = [found[f'{name} {value} {content}'] for value in values]
            heights = [one['AP_50'] if detector else 1 - one['changed'] for one in versions]
            axes.plot(values, heights, style, marker='o', label=content)
        axes.axhline(found['clean']['AP_50'] if detector else 1, color='C2', lw=1, label='clean')
        axes.set(xlabel=LABELS[name], xticks=values)
        axes.grid(alpha=0.3)
    panels[0].set(ylabel='AP at IoU 0.5' if detector else 'answer as before', ylim=(0, 1.02))
    panels[-1].legend(frameon=False)
    figure.savefig(path, dpi=110)
