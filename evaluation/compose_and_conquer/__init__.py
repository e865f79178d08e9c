"""Compose and Conquer (arXiv 2401.09048) measured: depth order, what is hidden, looks, reconstruction.

stage.py evaluate cnc                evaluate.evaluate
what paints                          painter.cnc_painter
its graphs                           graphs.CnC
which thing stands before the other  order.paint_pair
what stood behind the foreground     hidden.paint_hidden
looks stay in their region           looks.place
scenes painted again                 reconstruction.repaint
depth order of a picture             scores.judge_order
distance of colours                  scores.colour_distance
"""
