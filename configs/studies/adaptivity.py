# Which adaptive part of ASLO matters? Next check 1 of its paper: each switched off in turn.
#
#     sda sweep configs/studies/adaptivity.py --out docs/studies
title = "ASLO's adaptive parts"
note = ('Demo ResNet-18 on crops of 64 x 64 pixels, 60 iterations, channel values counted. ASLO (arXiv 2408.15702) '
        'says that parameters which follow the model make its changes fewer; which, it does not publish, so these are '
        'the parts of our design.')
base = 'sparse_dense_attacks::spgd_resnet18.py'
limit = 16
off = {
    'all parts': {},
    'weight fixed': dict(kappa=0),
    'sharpness fixed': dict(rho=1),
    'threshold fixed': dict(threshold='fixed'),
    'no threshold': dict(threshold='none'),
    'steps by cosine': dict(step_rule='cosine'),
    'no pruning': dict(prune=False),
    'as sigma-zero': dict(kappa=0, rho=1, step_rule='cosine', prune=False),
}
cells = {name: dict(attack=dict(type='ASLO', steps=60, **options)) for name, options in off.items()}
findings = [dict(claim=f'{name}: more changes than with all parts', measure='elements', more=name, less='all parts')
            for name in off if name != 'all parts']
del off
figure = 'elements'
