"""The electric potential in tissue, phi = phi_analytical (1 + NN): the flagship.

`physics`, `bodies` and `exact` stand alone: volume conduction without configuration, training or a
network.
"""
