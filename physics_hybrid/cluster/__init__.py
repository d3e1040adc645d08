"""How processes of one training find each other, keep alive, and leave together. It knows no
trainer.
"""
