# What do unprojected gradients and fresh masks cost? Next check 3 of Sparse-PGD's paper: time per pass.
#
#     sda sweep configs/studies/overhead.py --out docs/studies
title = "Time per pass of Sparse-PGD's parts"
note = ('Demo ResNet-18 on crops of 64 x 64 pixels, 40 pixels, 30 iterations without early stop: every cell spends '
        'the same passes, so the milliseconds differ by what the method itself does, and by whatever else ran on the '
        'machine.')
base = 'sparse_dense_attacks::spgd_resnet18.py'
limit = 16
options = {'attack.early_stop': False, 'attack.steps': 30, 'test_dataloader.batch_size': 16}
cells = {
    'plain': {'attack.patience': 1000},
    'fresh masks': {},
    'unprojected': {'attack.gradient': 'unprojected', 'attack.patience': 1000},
    'unprojected, fresh masks': {'attack.gradient': 'unprojected'},
}
figure = 'ms_per_forward'
findings = [
    dict(claim='fresh masks break more images at equal passes', measure='success', more='fresh masks', less='plain'),
]
