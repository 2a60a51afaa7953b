"""Attacks: what an adversary who holds the weights gets out of an unlearned model. They may train.

One file an attack, two functions each: ``prepare(model, target)`` does what the adversary does and returns what it
brought back, as tensors; ``measure(found, target)`` says what that is worth, as measured numbers.
"""
