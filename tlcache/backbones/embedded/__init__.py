"""A small backbone that ships inside the package: its network and its weights.

`resnet20_cifar.md` beside this file is the model card: data, recipe, accuracy, limits. `benchmarks/resnet20_cifar` is
what trained it.
"""
