# GSE's parameters, and is it more interpretable than Sparse-PGD? Next checks 1 and 2 and open question 3 of its paper.
#
#     sda sweep configs/studies/gse.py --out docs/studies
title = "GSE's k_hat and q, and Sparse-PGD beside it"
note = ('Demo ResNet-18 on crops of 64 x 64 pixels; GSE (arXiv 2311.17434) with its settings for ImageNet (mu 0.1, '
        'sigma 0.05) but 60 iterations and 6 searches, Sparse-PGD with 120 pixels. Untargeted: the class that an '
        'attack reaches stands for the target of IS. The paper says that GSE has fewer clusters and more of its '
        'perturbation where it is salient.')
base = 'sparse_dense_attacks::spgd_resnet18.py'
limit = 16
common = dict(type='GSE', mu=0.1, sigma=0.05, iters=60, search_steps=6)
cells = {
    'k_hat 5': dict(attack=dict(common, k_hat=5, q=0.9)),
    'k_hat 50': dict(attack=dict(common, k_hat=50, q=0.9)),
    'k_hat 50, q 0.25': dict(attack=dict(common, k_hat=50, q=0.25)),
    'Sparse-PGD': {'attack.k': 120},
}
del common
figure = 'is_90'
measures = ['acp', 'anc', 'd20', 'is']
findings = [
    dict(claim='Sparse-PGD has more clusters than GSE', measure='anc', more='Sparse-PGD', less='k_hat 50'),
    dict(claim='GSE has more of its perturbation where it is salient (IS at 50)', measure='is_50', more='k_hat 50',
         less='Sparse-PGD'),
    dict(claim='GSE has more of its perturbation where it is salient (IS at 90)', measure='is_90', more='k_hat 50',
         less='Sparse-PGD'),
    dict(claim='fewer steps of phase 1 leave more pixels', measure='acp', more='k_hat 5', less='k_hat 50'),
    dict(claim='a slower rise of lambda leaves more pixels', measure='acp', more='k_hat 50', less='k_hat 50, q 0.25'),
]
