# Which attack's images transfer best at equal pixels? Every core that takes a budget has 205 pixels (1 %); WI-FGSM, which takes
# none, is said to fool other models to 99.1 % on the mean, and spends what it wants.
#
#     sda transfer sparse_dense_attacks::transfer/methods.py
_base_ = ['demo_models.py']
limit = 16
allow_unequal = True
budgeted = dict(
    sparse_pgd=dict(type='SparsePGD', k=205, steps=100, early_stop=False),
    swap_pgd=dict(type='SwapPGD', k=205, steps=100, early_stop=False),
    pgd0=dict(type='PGD0', k=205, steps=100, early_stop=False),
)
sources = {name: dict(model='yolox', attack=attack) for name, attack in budgeted.items()}
sources['sigma_zero'] = dict(model='yolox', attack=dict(type='SigmaZero', steps=200, unit='pixel'))
sources['wi_fgsm'] = dict(model='yolox', attack=dict(type='WIFGSM', steps=200, steepness=28))
del budgeted
