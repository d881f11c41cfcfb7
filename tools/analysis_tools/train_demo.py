"""Train demo models and write their weights into the package.

    python tools/analysis_tools/train_demo.py [MODEL ...]     default: all of them
"""
import argparse
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.runner import Runner

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = {path.stem.removesuffix('_demo'): path
           for path in sorted((ROOT / 'configs' / 'training').glob('*_demo.py'))}
WEIGHTS = ROOT / 'sparse_dense_attacks' / 'demo' / 'weights'


def slim(model: torch.nn.Module, dataset_meta: dict) -> dict:
    """Keep what a test needs: convolution and linear weights in half precision, the rest as it is.

    Vectors stay in full precision: running variances of batch normalisation may be too small for
    half precision.
    """
    state = {name: value.half() if value.ndim > 1 else value
             for name, value in model.state_dict().items()}
    return dict(state_dict=state, meta=dict(dataset_meta=dict(dataset_meta)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('models', nargs='*', metavar='MODEL',
                        help=f'of {", ".join(CONFIGS)}; default: all')
    names = parser.parse_args().models or list(CONFIGS)
    if unknown := sorted(set(names) - set(CONFIGS)):
        parser.error(f'no demo model is called {unknown[0]}: {", ".join(CONFIGS)}')
    for name in names:
        runner = Runner.from_cfg(Config.fromfile(CONFIGS[name]))
        model = runner.train()
        file = WEIGHTS / f'{name}.pth'
        file.parent.mkdir(exist_ok=True)
        torch.save(slim(model, runner.train_dataloader.dataset.metainfo), file)
        print(f'{file}: {file.stat().st_size / 1e6:.2f} MB')


if __name__ == '__main__':
    main()
