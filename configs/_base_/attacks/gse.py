# GSE: few connected groups of pixels, their number found by the attack itself. The published settings for ImageNet; those for images
# of 32 x 32 are the defaults of the class. For detectors and segmenters add --cfg-options attack.steepness=1.
attack = dict(type='GSE', iters=200, mu=0.1, sigma=0.05, k_hat=50, q=0.9)
