# Sparse-PGD's perturbation and cost, but pixels are exchanged one by one: ours, for budgets of a few pixels.
attack = dict(type='SwapPGD', k=5, steps=100)
