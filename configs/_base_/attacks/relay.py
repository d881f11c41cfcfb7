# Sparse-PGD, then sigma-zero on the images that survived: ours, for detectors. With 1 % of the pixels. An image is left alone
# once it is broken, so let the goal ask for all that a metric counts, as goals/vanish_all.py does.
attack = dict(type='Relay', k=0.01, steps=100)
