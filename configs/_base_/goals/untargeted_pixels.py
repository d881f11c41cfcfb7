goal = dict(type='UntargetedPixels', theta=0.99)
