# WI-FGSM: which elements of a dense perturbation (10 steps of FGSM, eps 6/255) are needed. For detectors and segmenters add
# --cfg-options attack.steepness=28.
attack = dict(type='WIFGSM', steps=200)
