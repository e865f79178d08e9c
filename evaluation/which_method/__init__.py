"""One layout through every method, on both embedded networks: the table and the pictures of docs/which-method.md.

what each is good and bad at  ways.WAYS
graphs of their own           graphs.composed
paint them and write          main.main
"""
