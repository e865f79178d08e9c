"""Layout scores on fixed sets, the base family's own numbers, speed: what the tables of README.md and docs/ show.

stage.py evaluate            cli.main
what it is asked for         arguments.parse
stage.py bench               bench.bench.main
one setting at a time        sweeps.run
pictures from a real server  painter.Painter
methods on the layout sets   layouts.evaluate
one layout, every method     which_method.main.main
edits of real scenes         editing.evaluate.evaluate
regions with LoRAs           two_looks.evaluate.evaluate
scenes taken apart           splitting.evaluate.evaluate
lines without a layout       image_lines.image_line
rows of results              result_rows.result_row
pictures in a grid           tiles.tile
the base family's numbers    base_family.measures
"""
