# How does the size of the input change the pixels that are needed? Open question of sigma-zero and Sparse-PGD.
#
#     sda sweep configs/studies/resolution.py --out docs/studies
title = 'The same objects at several sizes'
note = ('Demo ResNet-18 on the largest object of each scene, cut out and resized; it was trained on 64 x 64 pixels. '
        'sigma-zero with 60 iterations, pixels counted.')
base = 'sparse_dense_attacks::spgd_resnet18_largest.py'
limit = 16
options = dict(attack=dict(type='SigmaZero', unit='pixel', steps=60), threat=dict(grid='input'))
cells = {f'{size} x {size}': {'test_dataloader.dataset.pipeline.2.scale': (size, size)} for size in (48, 64, 96)}
figure = 'pixels'
findings = [
    dict(claim='more pixels are needed at 96 than at 64', measure='pixels', more='96 x 96', less='64 x 64'),
    dict(claim='more pixels are needed at 64 than at 48', measure='pixels', more='64 x 64', less='48 x 48'),
]
