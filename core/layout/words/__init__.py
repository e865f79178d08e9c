"""Layouts out of words: sentences by rules, and what language models answer.

sentences to a layout                      described.layout_of_sentences
sentences told from lines                  described.is_sentences
what sentences say                         sentences.read_sentences
names and the words between them           tokens.tokens_of
the English that is understood             vocabulary.singular
a box for everything                       placing.place_things
what a statement means for edges           statements.ways_of
orders of edges, without contradiction     orders.Orders
boxes as usual as the orders allow         fitting.Fit
"""
