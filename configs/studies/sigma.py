# How sharp should sigma-zero's smooth l0 norm be, and what is its threshold good for? Next checks 2 and 3 of its paper.
#
#     sda sweep configs/studies/sigma.py --out docs/studies
title = "sigma-zero's sharpness and threshold"
note = ('Demo ResNet-18 on crops of 64 x 64 pixels, 60 iterations, channel values counted as published. sigma-zero '
        '(arXiv 2402.01879) is said to need both its threshold and a sigma of about 1e-3.')
base = 'sparse_dense_attacks::spgd_resnet18.py'
limit = 24
cells = {
    'sigma = 1e-4': dict(attack=dict(type='SigmaZero', steps=60, sigma=1e-4)),
    'sigma = 1e-3': dict(attack=dict(type='SigmaZero', steps=60)),
    'sigma = 1e-2': dict(attack=dict(type='SigmaZero', steps=60, sigma=1e-2)),
    'fixed threshold': dict(attack=dict(type='SigmaZero', steps=60, t=0.0)),
    'no threshold': dict(attack=dict(type='SigmaZero', steps=60, tau0=0.0, t=0.0)),
}
figure = 'elements'
measures = ['anc']
findings = [
    dict(claim='the threshold is needed for few changes', measure='elements', more='no threshold', less='sigma = 1e-3'),
    dict(claim='a threshold that follows success finds fewer changes than a fixed one', measure='elements',
         more='fixed threshold', less='sigma = 1e-3'),
    dict(claim='a smoother norm finds more changes', measure='elements', more='sigma = 1e-2', less='sigma = 1e-3'),
    dict(claim='a sharper norm finds more changes', measure='elements', more='sigma = 1e-4', less='sigma = 1e-3'),
]
