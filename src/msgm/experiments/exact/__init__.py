"""Gaussian mixtures: densities, scores and every optimum in closed form."""
