"""A small backbone that ships inside the package: its network, its weights, and the script that trained them.

`resnet20_cifar.md` beside this file is the model card: data, recipe, accuracy, limits.
"""
