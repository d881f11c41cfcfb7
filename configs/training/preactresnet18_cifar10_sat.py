# Sparse-PGD adversarial training of PreActResNet-18 on CIFAR-10 (arXiv 2405.05075), on the adversarial images alone.
#
#     sda train configs/training/preactresnet18_cifar10_sat.py
#
# All else as in preactresnet18_cifar10_strades.py.
_base_ = './preactresnet18_cifar10_strades.py'

custom_hooks = [
    dict(type='AdversarialTrainingHook', goal={{_base_.goal}}, attack={{_base_.train_attack}}, loss='sAT'),
]
