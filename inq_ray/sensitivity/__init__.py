"""Sensitivity of a network to the bits of each layer, measured without training, and bits proposed from it.

allocation       which bits a layer gets, from sizes and losses: pure functions
probe            the network with some layers quantized, its score and size
measure          measurement of all layers, alone and cumulatively
proposal         bits for a wanted size or accuracy, and the configuration with them
figures          sensitivity.json
picture          the same as a picture
"""
