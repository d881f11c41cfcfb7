# WI-FGSM's width a of the l0 gradient, its threshold, and its bound; open questions of its paper.
#
#     sda sweep configs/studies/a_annealing.py --out docs/studies
title = "WI-FGSM's width, threshold and bound"
note = ('Demo ResNet-18 on crops of 64 x 64 pixels, 60 iterations. WI-FGSM (arXiv 2506.17250) keeps a fixed, and '
        'does without an l0 gradient in its published code.')
base = 'sparse_dense_attacks::spgd_resnet18.py'
limit = 16
cells = {
    'a = 0.1': dict(attack=dict(type='WIFGSM', steps=60)),
    'a from 1 to 0.1': dict(attack=dict(type='WIFGSM', steps=60, a=1.0)),
    'a from 0.1 to 0.01': dict(attack=dict(type='WIFGSM', steps=60, a_final=0.01)),
    'no l0 gradient': dict(attack=dict(type='WIFGSM', steps=60, l0='none')),
    'no threshold': dict(attack=dict(type='WIFGSM', steps=60, tau=0.0)),
    'one-sided bound': dict(attack=dict(type='WIFGSM', steps=60, bound='one_sided')),
}
figure = 'elements'
measures = ['anc']
findings = [
    dict(claim='the threshold is needed for few changes', measure='elements', more='no threshold', less='a = 0.1'),
    dict(claim='the l0 gradient makes for fewer changes', measure='elements', more='no l0 gradient', less='a = 0.1'),
    dict(claim='annealing a from 1 makes for fewer changes', measure='elements', more='a = 0.1', less='a from 1 to 0.1'),
    dict(claim='annealing a to 0.01 makes for fewer changes', measure='elements', more='a = 0.1', less='a from 0.1 to 0.01'),
    dict(claim='a one-sided bound makes for fewer changes', measure='elements', more='a = 0.1', less='one-sided bound'),
]
