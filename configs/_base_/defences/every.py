# Every defence, mild and stronger, and the two attacks that they are shown to.
defences = dict(
    jpeg75=dict(type='JPEG', quality=75),
    jpeg25=dict(type='JPEG', quality=25),
    median3=dict(type='Median', size=3),
    bits4=dict(type='BitDepth', bits=4),
    resize_pad=dict(type='RandomResizePad', least=0.9, draws=4),
    total_variation=dict(type='TotalVariation', weight=0.1),
)
attacks = dict(
    spgd=dict(type='SparsePGD', k=0.01, steps=100, early_stop=False),
    sigma_zero=dict(type='SigmaZero', steps=100, unit='pixel'),
)
