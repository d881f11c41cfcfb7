# Open question 4 of the Sparse-PGD paper: does the shape of what is changed decide whether it transfers? Each pattern may
# cover about 5 % of a file of 128 x 160 pixels.
#
#     sda transfer sparse_dense_attacks::transfer/kernels.py
_base_ = ['demo_models.py']
limit = 16
allow_unequal = True  # budgets count patterns; the table prints the pixels
kernels = dict(
    row=(6, 'Row'),
    column=(8, 'Column'),
    patch3=(114, dict(type='Patch', height=3, width=3)),
    patch5=(41, dict(type='Patch', height=5, width=5)),
    patch9=(13, dict(type='Patch', height=9, width=9)),
    heart=(20, dict(type='Shape', name='heart', size=9)),
    star=(25, dict(type='Shape', name='star', size=9)),
    letter=(25, dict(type='Shape', name='A', size=9)),
)
sources = {f'{pattern}_{model}': dict(model=model, attack=dict(
    type='StructuredSparsePGD', k=k, kernel=kernel, steps=50, early_stop=False))
    for pattern, (k, kernel) in kernels.items() for model in ('yolox', 'semantic_fpn')}
del kernels
