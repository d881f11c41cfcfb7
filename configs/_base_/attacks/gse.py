# GSE: few connected groups of pixels, their number found by the attack itself.
attack = dict(type='GSE', iters=200)
