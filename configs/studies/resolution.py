# How does the size of the input change the pixels that are needed? Open question of sigma-zero and Sparse-PGD.
#
#     sda sweep configs/studies/resolution.py --out docs/studies
title = 'The same objects at several sizes'
note = ('Demo ResNet-18 on the largest object of each scene, cut out and resized; it was trained on 64 x 64 pixels. '
        'sigma-zero with 100 iterations, pixels counted.')
base = 'sparse_dense_attacks::spgd_resnet18_largest.py'
limit = 24
options = dict(attack=dict(type='SigmaZero', unit='pixel', steps=100), threat=dict(grid='input'))
cells = {f'{size} x {size}': {'test_dataloader.dataset.pipeline.2.scale': (size, size)} for size in (32, 48, 64, 96, 128)}
figure = 'pixels'
findings = [
    dict(claim='more pixels are needed at 128 than at 64', measure='pixels', more='128 x 128', less='64 x 64'),
    dict(claim='more pixels are needed at 64 than at 32', measure='pixels', more='64 x 64', less='32 x 32'),
]
