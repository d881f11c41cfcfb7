# Which attack's images transfer best at equal pixels? Every core that takes a budget has 205 pixels (1 %) of the same 16
# files, a detector to break, and about 100 passes forward and backward (the random search of SparseRS, which needs no
# gradient, 1000 forwards).
#
#     sda transfer sparse_dense_attacks::transfer/methods.py
#
# Equal is the largest number of pixels. The first five spend it, and all of their steps; the cores that look for the fewest
# pixels (from sigma_zero on) stop at an image once it is broken within the budget, and change fewer pixels in others: the
# table prints how many. WI-FGSM counts channel values, and 205 of these are 205 pixels at most. Its claim is that of images
# without a budget, which fool other classifiers to 99.1 % on the mean: wi_fgsm_published is just that, on a classifier, and
# wi_fgsm_free the same on the detector, with the steepness that detectors need. Not here: ScreenedCorners (up to four pixels),
# groups (kernels.py), and what makes other cores' images sparser (BudgetSearch, ASLOAddOn).
_base_ = ['demo_models.py']
limit = 16
few = dict(
    sparse_pgd=dict(type='SparsePGD', k=205, steps=100, early_stop=False),
    swap_pgd=dict(type='SwapPGD', k=205, steps=100, early_stop=False),
    pgd0=dict(type='PGD0', k=205, steps=100, early_stop=False),
    sparse_rs=dict(type='SparseRS', k=205, steps=1000, early_stop=False),
    sparse_auto_attack=dict(type='SparseAutoAttack', k=205, steps=50, queries=200, early_stop=False),
    sigma_zero=dict(type='SigmaZero', steps=100, unit='pixel', budget=205),
    aslo=dict(type='ASLO', steps=100, unit='pixel', budget=205),
    descent=dict(type='Descent', steps=100, unit='pixel', budget=205),
    gse=dict(type='GSE', mu=0.1, sigma=0.05, k_hat=25, q=0.9, iters=50, search_steps=4, steepness=1, budget=205),
    wi_fgsm=dict(type='WIFGSM', steps=100, steepness=28, budget=205),
    wi_fgsm_free=dict(type='WIFGSM', steps=200, steepness=28),
)
sources = {name: dict(model='yolox', attack=attack) for name, attack in few.items()}
sources['wi_fgsm_published'] = dict(model='resnet18', attack=dict(type='WIFGSM', steps=200))
del few
