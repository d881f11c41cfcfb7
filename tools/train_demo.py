"""Train the demo detector and write its weights into the package: python tools/train_demo.py"""

from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.runner import Runner

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = ROOT / 'sparse_dense_attacks' / 'demo' / 'weights' / 'faster_rcnn.pth'


def slim(model: torch.nn.Module, dataset_meta: dict) -> dict:
    """Keep what a test needs: convolution and linear weights in half precision, everything else as it is.

    Vectors stay in full precision: running variances of batch normalisation may be too small for half precision.
    """
    state = {name: value.half() if value.ndim > 1 else value for name, value in model.state_dict().items()}
    return dict(state_dict=state, meta=dict(dataset_meta=dict(dataset_meta)))


def main() -> None:
    runner = Runner.from_cfg(Config.fromfile(ROOT / 'configs' / 'training' / 'faster_rcnn_demo.py'))
    model = runner.train()
    WEIGHTS.parent.mkdir(exist_ok=True)
    torch.save(slim(model, runner.train_dataloader.dataset.metainfo), WEIGHTS)
    print(f'{WEIGHTS}: {WEIGHTS.stat().st_size / 1e6:.2f} MB')


if __name__ == '__main__':
    main()
