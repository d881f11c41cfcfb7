# Sparse-PGD with a budget of whole rows of the image.
attack = dict(type='StructuredSparsePGD', k=5, kernel='Row', steps=100, early_stop=False)
