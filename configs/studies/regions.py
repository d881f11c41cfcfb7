# Do attacks on a detector prefer its objects? Next check 3 of GSE's paper.
#
#     sda sweep configs/studies/regions.py --out docs/studies
title = 'Inside and outside of objects'
note = ('Demo YOLOX on scenes of 128 x 160 pixels, Vanish, 40 iterations. inside_pixels is the share of the changed '
        'pixels within the boxes of objects, divided by the share of the image that these cover: 1 would be no '
        'preference. inside_l1 is the same of the 1-norm.')
base = 'sparse_dense_attacks::spgd_yolox.py'
limit = 6
options = {'test_dataloader.batch_size': 6}
cells = {
    'Sparse-PGD, 2 %': dict(attack=dict(type='SparsePGD', k=0.02, steps=40, early_stop=False)),
    'Sparse-PGD, 1 %': dict(attack=dict(type='SparsePGD', k=0.01, steps=40, early_stop=False)),
    'sigma-zero': dict(attack=dict(type='SigmaZero', unit='pixel', steps=40)),
}
figure = 'inside_pixels'
measures = ['anc', 'inside', 'detections']
findings = [
    dict(claim='the fewer the pixels, the more of them lie on objects', measure='inside_pixels', more='sigma-zero',
         less='Sparse-PGD, 2 %'),
    dict(claim='half the budget lies more on objects than the whole', measure='inside_pixels', more='Sparse-PGD, 1 %',
         less='Sparse-PGD, 2 %'),
]
