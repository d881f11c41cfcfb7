# Sparse-PGD with 1 % of the pixels. Spends all its steps: average precision is read afterwards, and it counts low scores too.
attack = dict(type='SparsePGD', k=0.01, steps=100, early_stop=False)
