"""Visual protection by a trained network: no keys, one network shared by all participants.

A trusted third party trains the network on a data set of its own (``third_party``) and writes a
bundle (``bundle``): the network for the participants, the classifier for the provider.
"""
