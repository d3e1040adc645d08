"""python -m physics_hybrid VERB: one file a verb, light to import, with a function
`main(arguments)`.
"""
