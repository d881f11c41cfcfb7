# GSE: few connected groups of pixels, their number found by the attack itself. These are the published settings for ImageNet, the
# defaults of the class are those for images of 32 x 32. For detectors and segmenters add --cfg-options attack.steepness=1.
attack = dict(type='GSE', iters=200, mu=0.1, sigma=0.05, k_hat=50, q=0.9)
