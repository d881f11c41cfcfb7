# Descent (ours): as few pixels as it takes, fewer than sigma-zero finds with the same forwards.
attack = dict(type='Descent', steps=300, unit='pixel')
