"""Measure attacks: their strength on real images, and their cost against the bare model.

    cd <this repository>; B=tools/analysis_tools/benchmark.py
    python $B cifar10      every attack on ResNet-20, beside adversarial-library's (make env-bench)
    python $B cifar10 --model cnn_a_adv --seeds 0 1 2     on another model, means and intervals
    python $B detector     every attack on a detector (YOLOX-nano and 16 COCO images)
    python $B memory       peak memory after 10 and after 1000 iterations
    python $B overhead     time per iteration of every core on ResNet-20, batch 128 (--model)
    python $B overhead configs/coco/spgd_yolox-nano_coco.py --batch-size 8
    python $B training --model faster_rcnn --steps 5     adversarial training over plain training

Gaps are mean distances from the best count that any run found for an image, kept in envelope.json.
Costs are ratios within one run. The commands are in strength.py, cost.py and training_time.py.
"""
import argparse
import sys

import cost
import strength
import training_time

from sparse_dense_attacks.cli.common import main


def run(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest='command', required=True)
    for part in (strength, cost, training_time):
        part.add_commands(commands)
    args = parser.parse_args(argv)
    args.call(args)


if __name__ == '__main__':
    sys.exit(main(run))
