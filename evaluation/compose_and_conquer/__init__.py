"""Compose and Conquer (arXiv 2401.09048) measured: depth order, looks, reconstruction.

stage.py evaluate cnc                evaluate.evaluate
its graphs                           graphs.CnC
which thing stands before the other  order.order_row
looks stay in their region           looks.looks_row
scenes painted again                 reconstruction.reconstruction_row
depth order of a picture             scores.judge_order
distance of colours                  scores.colour_distance
"""
