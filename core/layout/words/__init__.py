"""Layouts out of words: English sentences by rules, and the JSON that language models answer.

sentences told from lines                  described.is_sentences
sentences to a layout                      described.layout_of_sentences
what sentences say                         sentences.read_sentences
names and the words between them           tokens.tokens_of
the English that is understood             vocabulary.singular
a box for everything                       placing.place_things
what a statement means for edges           statements.ways_of
orders of edges, without contradiction     orders.Orders
boxes as usual as the orders allow         fitting.Fit
JSON in a text with more in it             answers.find_layout
JSON however it is written                 loose_json.as_json
boxes however they count                   loose_boxes.plain_layout
"""
