# Sparse-PGD with a budget of square patches; other groups: Row, Column, Shape (letters and hearts), Picture.
attack = dict(type='StructuredSparsePGD', k=4, kernel=dict(type='Patch', height=16, width=16), steps=100, early_stop=False)
