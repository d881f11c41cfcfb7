"""What an adversarial data set says of itself to people."""
from collections.abc import Mapping, Sequence

from .dataset import Manifest

__all__ = ['readme']

TEXT = """# Adversarial images

{count} images that were attacked, so that {model} ({library}) fails on them. They are PNG files on the grid
of the original image files: in the same sizes, under the same names but for the ending.

## Threat model

| what | how |
|---|---|
| goal | `{goal}` |
| attack | `{attack}` |
| threat model | `{threat}` |
| pixels changed | {pixels} |
| model | {model} of {library}, see `config.py` |
| weights | {weights} |
| annotations | {truth} |

`manifest.json` has the digests of all files, and for each image the original it was made of and how many
of its pixels differ.

## Score

With {library} and its own, unmodified `tools/test.py`, from any folder:

    python tools/test.py {here}config.py WEIGHTS

{library} brings that file along: `python -c "import {library}; print({library}.__path__[0] + '/.mim/tools/test.py')"`.
Where mmcv's compiled operators are absent: `python -m sparse_dense_attacks.compat tools/test.py ...`.
{needs}{outside}
| metric | on these images |
|---|---|
{metrics}

Other models: put their `model` into a copy of `config.py`, and their pipeline.

## Verify

    sda verify {here} --clean FOLDER_OF_THE_ORIGINAL_IMAGES

counts the changed pixels anew, compares every file with its digest, and scores again. The command is of the
Python package sparse-dense-attacks.

## Licence

These images are derived from other people's: the licence of the original images and annotations holds
for them as well, so look it up before you share them. They were read from a folder named `{origin}`.
{licences}
## Cite

Cite the data set that the images were made of, the paper of the attack, and the software:

    sparse-dense-attacks, version {version}: sparse adversarial attacks for classifiers, detectors and
    segmenters on OpenMMLab. The sparse-dense-attacks contributors. Apache-2.0.
"""
NEEDS = """
The model has parts of the package sparse-dense-attacks, which `config.py` imports.
"""


def readme(manifest: Manifest, licences: Sequence[str] = (), outside: Sequence[str] = (),
           needs_us: bool = False) -> str:
    """The text of a data set's README.md.

    Args:
        licences: what the annotation file says about licences.
        outside: files and folders that ``config.py`` names and that are not part of the data set.
        needs_us: the model cannot be built without this package.
    """
    counts = [entry.l0_pixels for entry in manifest.images]
    truth = dict(annotations='those of the original data set',
                 predictions='what the model predicted on the clean images')
    rows = [f'| {name} | {_short(value)} |' for name, value in manifest.metrics.items()
            if isinstance(value, int | float)]
    weights = 'random' if manifest.checkpoint is None else _file(manifest)
    reads = ', '.join(f'`{path}`' for path in outside)
    listed = ''.join(f'\n- {licence}' for licence in licences)
    return TEXT.format(
        count=len(counts), library=manifest.library, model=manifest.model,
        goal=_call(manifest.goal), attack=_call(manifest.attack), threat=_call(manifest.threat),
        pixels=f'{min(counts)} to {max(counts)} of an image', weights=weights,
        truth=truth[manifest.truth], here='DATASET/', metrics='\n'.join(rows),
        needs=NEEDS if needs_us else '',
        outside=f'\n`config.py` also reads {reads}, which is not here.\n' if outside else '',
        origin=manifest.clean_root.rstrip('/').rpartition('/')[2],
        licences=f'Their annotation file names these licences:\n{listed}\n' if listed else '',
        version=manifest.version)


def _file(manifest: Manifest) -> str:
    name = str(manifest.checkpoint).rpartition('/')[2]
    return f'`{name}`, SHA-256 begins with {manifest.weights}'


def _short(value: float) -> str:
    return f'{value:.4f}' if isinstance(value, float) else str(value)


def _call(described) -> str:
    """A described component as one writes it, such as ``SparsePGD(k=20)``."""
    if isinstance(described, Mapping):
        inner = ', '.join(f'{name}={_call(value)}' for name, value in described.items()
                          if name != 'type')
        return f"{described.get('type', 'dict')}({inner})"
    return repr(described)
