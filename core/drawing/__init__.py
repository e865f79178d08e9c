"""Pictures as they come, and what the pack draws itself: plates over pictures, and plots.

colours, whatever channels    pictures.colours_of
no NaN                       pictures.check_finite
which of several pictures    pictures.of_picture
colours of regions           plates.region_colour
text on a plate              plates.draw_plate
outlines of masks            plates.mask_outline
enlarged by whole factors    plates.enlarged
pictures on other grids      resizing.resized
means of a grid's cells      resizing.mean_pooled
soft masks as a short text   packed_greys.pack_greys
axes of a plot               plots.Plot
energies of a guidance       plots.plot_energies
losses of a draft            plots.plot_losses
which files are opened       formats.FORMATS
"""
