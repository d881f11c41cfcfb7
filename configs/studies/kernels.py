# Which shape of patch breaks a classifier at equal area? Open question 4 of Sparse-PGD's paper; configs/transfer/kernels.py
# asks the same of transfer.
#
#     sda sweep configs/studies/kernels.py --out docs/studies
title = 'Shapes at equal area'
note = ('Demo ResNet-18 on crops of 64 x 64 pixels; each pattern may cover about 5 % of them (k patterns), 40 '
        'iterations of Sparse-PGD on groups (arXiv 2405.05075).')
base = 'sparse_dense_attacks::spgd_resnet18.py'
limit = 24
kernels = dict(
    pixel=(205, 'Pixel'),
    row=(3, 'Row'),
    patch3=(23, dict(type='Patch', height=3, width=3)),
    patch5=(8, dict(type='Patch', height=5, width=5)),
    patch9=(3, dict(type='Patch', height=9, width=9)),
    star=(5, dict(type='Shape', name='star', size=9)),
)
cells = {name: dict(attack=dict(type='StructuredSparsePGD', k=k, kernel=kernel, steps=40))
         for name, (k, kernel) in kernels.items()}
del kernels
figure = 'forwards'
measures = ['anc']
findings = [
    dict(claim='single pixels break more than a few large patches', measure='success', more='pixel', less='patch9'),
    dict(claim='small patches break more than large ones', measure='success', more='patch3', less='patch9'),
    dict(claim='patches break more than rows', measure='success', more='patch5', less='row'),
]
