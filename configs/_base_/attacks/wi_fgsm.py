# WI-FGSM: which elements of a dense perturbation (10 steps of FGSM, eps 6/255) are needed.
attack = dict(type='WIFGSM', steps=200)
