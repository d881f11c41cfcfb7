# When should Sparse-PGD draw its mask anew? Next check 2 of its paper: patience 1, 3, 10, never.
#
#     sda sweep configs/studies/reinit.py --out docs/studies
title = "Sparse-PGD's patience"
note = ('Demo ResNet-18 on crops of 64 x 64 pixels, 2 pixels, 50 iterations. Sparse-PGD (arXiv 2405.05075) draws a '
        'mask anew that has not changed for 3 iterations, and says that this helps it out of local optima.')
base = 'sparse_dense_attacks::spgd_resnet18.py'
limit = 48
options = {'attack.k': 2, 'attack.steps': 50}
cells = {f'patience {name}': {'attack.patience': patience} for name, patience in
         (('1', 1), ('3', 3), ('10', 10), ('never', 1000))}
figure = 'forwards'
findings = [
    dict(claim='re-initialisation breaks more images', measure='success', more='patience 3', less='patience never'),
    dict(claim='the published patience breaks more than drawing at once', measure='success', more='patience 3',
         less='patience 1'),
    dict(claim='the published patience breaks more than waiting for longer', measure='success', more='patience 3',
         less='patience 10'),
]
