"""`python stage.py pages`: the pictures of the nodes' help pages, from the real editor and a real run.

The command                    pages.main
Which workflow shows a node    choice.shown_in
The editor with a workflow     graph_page.GraphPage
One picture of graph and run   picture.joined
"""
